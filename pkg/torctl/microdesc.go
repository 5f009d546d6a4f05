package torctl

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"net/netip"
	"strings"

	"vpnd/pkg/torpath"
)

// digest tells which microdescriptor is whose: the control port cuts the
// SHA-256 that a consensus has for one to the 20 bytes of other descriptors.
type digest [20]byte

// readDigest gives the zero digest, which is nobody's, for what it cannot read.
func readDigest(s string) (d digest) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err == nil && len(b) >= len(d) {
		copy(d[:], b)
	}
	return d
}

// microdesc is what a path needs to know of a relay's microdescriptor.
type microdesc struct {
	addr6         netip.Addr
	ports, ports6 torpath.PortPolicy
	family        []string
}

// maxFamily is how many members of a family count; real ones have hundreds.
const maxFamily = 4096

// microdescs reads microdescriptors (dir-spec, section 3.3) as md/all gives
// them, one behind the other, line by line. It skips lines that it does not
// know. A policy that cannot be read counts as none: such a relay is no exit.
type microdescs struct {
	all map[digest]microdesc
	sum hash.Hash // of the one being read, nil before the first
	now microdesc
	bad bool
}

func (m *microdescs) line(b []byte) {
	if string(b) == "onion-key" { // begins each
		m.keep()
		m.sum, m.now = sha256.New(), microdesc{}
	}
	if m.sum == nil {
		m.bad = true
		return
	}
	m.sum.Write(b)
	m.sum.Write([]byte{'\n'})
	kind, rest, _ := bytes.Cut(b, []byte{' '})
	switch d := &m.now; string(kind) {
	case "a":
		d.addr6 = firstAddr6(d.addr6, string(rest))
	case "p":
		d.ports, _ = torpath.ParsePortPolicy(string(rest))
	case "p6":
		d.ports6, _ = torpath.ParsePortPolicy(string(rest))
	case "family", "family-ids":
		names := strings.Fields(string(rest))
		d.family = append(d.family, names[:min(len(names), maxFamily-len(d.family))]...)
	}
}

func (m *microdescs) keep() {
	if m.sum == nil {
		return
	}
	if m.all == nil {
		m.all = map[digest]microdesc{}
	}
	m.all[digest(m.sum.Sum(nil)[:20])] = m.now
}

// end gives them all; false means that the text was something else.
func (m *microdescs) end() (map[digest]microdesc, bool) {
	m.keep()
	return m.all, !m.bad
}
