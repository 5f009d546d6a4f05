//go:build linux

package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attr is one netlink attribute. Data may hold further attributes; the kernel's
// answers of this subsystem do not say which do.
type attr struct {
	kind   uint16
	nested bool // only meaningful in what we encoded ourselves
	data   []byte
}

var errMalformed = errors.New("malformed netlink attribute")

// attributes gives those of an nftables message, after its 4-byte header.
func attributes(m netlink.Message) ([]attr, error) {
	const header = 4
	if len(m.Data) < header {
		return nil, errMalformed
	}
	return splitAttrs(m.Data[header:])
}

// splitAttrs cuts b into attributes, in their order.
func splitAttrs(b []byte) ([]attr, error) {
	const header, nested, byteorder = 4, unix.NLA_F_NESTED, unix.NLA_F_NET_BYTEORDER
	var attrs []attr
	for len(b) > 0 {
		if len(b) < header {
			return nil, errMalformed
		}
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < header || length > len(b) {
			return nil, errMalformed
		}
		attrs = append(attrs, attr{kind: kind &^ (nested | byteorder), nested: kind&nested != 0, data: b[header:length]})
		b = b[min((length+3)&^3, len(b)):]
	}
	return attrs, nil
}

// text is a string attribute without its closing zero.
func text(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }

// expression is one expression of a rule.
type expression struct {
	name string
	data []attr
}

func splitExpressions(b []byte) ([]expression, error) {
	elems, err := splitAttrs(b)
	if err != nil {
		return nil, err
	}
	list := make([]expression, len(elems))
	for i, elem := range elems {
		if list[i], err = parseExpression(elem.data); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func parseExpression(b []byte) (e expression, err error) {
	attrs, err := splitAttrs(b)
	for _, a := range attrs {
		switch a.kind {
		case unix.NFTA_EXPR_NAME:
			e.name = text(a.data)
		case unix.NFTA_EXPR_DATA:
			if e.data, err = splitAttrs(a.data); err != nil {
				return e, err
			}
		}
	}
	return e, err
}

// sameRule tells whether the kernel's encoding of a rule means what we asked for.
// The two encodings are never equal byte by byte: the kernel adds attributes
// with their default, drops what has no meaning, and closes names with a zero.
// The library's own decoder is no help, it skips expressions it does not know.
func sameRule(want exprs, got []byte) (bool, error) {
	have, err := splitExpressions(got)
	if err != nil {
		return false, err
	}
	if len(have) != len(want) {
		return false, nil
	}
	for i := range want {
		b, err := expr.Marshal(unix.NFPROTO_INET, want[i])
		if err != nil {
			return false, fmt.Errorf("encode %T: %w", want[i], err)
		}
		w, err := parseExpression(b)
		if err != nil {
			return false, err
		}
		if !w.same(have[i]) {
			return false, nil
		}
	}
	return true, nil
}

func (e expression) same(got expression) bool {
	want := e.data
	if e.name == "reject" && got.name == "reject" && isReset(got.data) {
		want = without(want, unix.NFTA_REJECT_ICMP_CODE) // a reset has no code
	}
	if e.name == "ct" && got.name == "ct" {
		want = without(want, unix.NFTA_CT_DIRECTION) // original, which is 0, in another width
	}
	return e.name == got.name && sameAttrs(want, got.data)
}

func isReset(attrs []attr) bool {
	for _, a := range attrs {
		if a.kind == unix.NFTA_REJECT_TYPE {
			return bytes.Equal(a.data, binary.BigEndian.AppendUint32(nil, unix.NFT_REJECT_TCP_RST))
		}
	}
	return false
}

func without(attrs []attr, kind uint16) []attr {
	var rest []attr
	for _, a := range attrs {
		if a.kind != kind {
			rest = append(rest, a)
		}
	}
	return rest
}

// sameAttrs wants every attribute of want in got, and everything else in got to
// be zero, which is the default of all attributes concerned.
func sameAttrs(want, got []attr) bool {
	matched := 0
	for _, g := range got {
		w, ok := find(want, g.kind)
		switch {
		case !ok:
			if len(bytes.Trim(g.data, "\x00")) != 0 {
				return false
			}
		case !w.same(g):
			return false
		default:
			matched++
		}
	}
	return matched == len(want)
}

func find(attrs []attr, kind uint16) (attr, bool) {
	for _, a := range attrs {
		if a.kind == kind {
			return a, true
		}
	}
	return attr{}, false
}

func (a attr) same(got attr) bool {
	if a.nested {
		w, werr := splitAttrs(a.data)
		g, gerr := splitAttrs(got.data)
		return werr == nil && gerr == nil && sameAttrs(w, g)
	}
	return bytes.Equal(a.data, got.data) || bytes.Equal(append(bytes.Clone(a.data), 0), got.data)
}
