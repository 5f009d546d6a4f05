//go:build linux

package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// answerTimeout bounds every exchange with the kernel when the context does not:
// the library waits for one answer per message, and out of memory the kernel
// sends fewer.
const answerTimeout = 5 * time.Second

// conn gives the connection, opening it when there is none. It is kept, because
// closing one after a batch makes the caller wait for the kernel (6 to 31 ms),
// and given up after any error: an encoding error sticks to it for ever, and
// unread answers would be taken for those to the next question.
func (f *Firewall) conn(ctx context.Context) (*nftables.Conn, error) {
	if f.lasting == nil {
		prepare := func(c *netlink.Conn) error {
			// Room for a whole batch and its answers. Without CAP_NET_ADMIN the kernel
			// grants less; the batch itself then fails with a clearer error.
			_ = c.SetWriteBuffer(1 << 20)
			_ = c.SetReadBuffer(1 << 20)
			f.socket = c
			return nil
		}
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(f.cfg.NetNS), nftables.WithSockOptions(prepare))
		if err != nil {
			return nil, explain(fmt.Errorf("open nftables connection: %w", err))
		}
		f.lasting = conn
	}
	if err := f.socket.SetDeadline(deadline(ctx)); err != nil {
		return nil, fmt.Errorf("nftables connection: %w", err)
	}
	return f.lasting, nil
}

// hangUp gives the connection up; the next question opens another.
func (f *Firewall) hangUp() {
	if f.lasting != nil {
		_ = f.lasting.CloseLasting()
	}
	f.lasting, f.socket = nil, nil
}

// hangUpAfter is for deferring: it gives the connection up if there was an error.
func (f *Firewall) hangUpAfter(err *error) {
	if *err != nil {
		f.hangUp()
	}
}

func deadline(ctx context.Context) time.Time {
	if t, ok := ctx.Deadline(); ok {
		return t
	}
	return time.Now().Add(answerTimeout)
}

// ask sends one request outside a batch and returns the answers. The library
// has no call for the questions asked this way.
func (f *Firewall) ask(ctx context.Context, kind netlink.HeaderType, flags netlink.HeaderFlags, attrs []netlink.Attribute) ([]netlink.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := f.conn(ctx); err != nil {
		return nil, err
	}
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	header := []byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}
	return f.socket.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | flags},
		Data:   append(header, data...),
	})
}

// generation numbers the states of the whole ruleset of a network namespace.
// Every change by anybody, in any table, is a new one. 0 is never used.
type generation uint32

func (g generation) next() generation {
	if g++; g == 0 {
		g++
	}
	return g
}

func (f *Firewall) generation(ctx context.Context) (generation, error) {
	msgs, err := f.ask(ctx, unix.NFT_MSG_GETGEN, 0, nil)
	if err != nil {
		return 0, explain(fmt.Errorf("read ruleset generation: %w", err))
	}
	for _, m := range msgs {
		attrs, err := attributes(m)
		if err != nil {
			return 0, fmt.Errorf("read ruleset generation: %w", err)
		}
		for _, a := range attrs {
			if a.kind == unix.NFTA_GEN_ID && len(a.data) == 4 {
				return generation(binary.BigEndian.Uint32(a.data)), nil
			}
		}
	}
	return 0, errors.New("read ruleset generation: the kernel gave none")
}

// chains lists what is in our tables, also what is not ours.
func (f *Firewall) chains(conn *nftables.Conn) ([]*nftables.Chain, error) {
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, explain(fmt.Errorf("list nftables chains: %w", err))
	}
	var ours []*nftables.Chain
	for _, c := range all {
		if c.Table != nil && slices.Contains(f.cfg.tableNames(), c.Table.Name) {
			ours = append(ours, c)
		}
	}
	return ours, nil
}

func (c chainSpec) sameHook(got *nftables.Chain) bool {
	if !c.base() {
		return got.Hooknum == nil
	}
	return got.Hooknum != nil && *got.Hooknum == c.hook &&
		got.Priority != nil && *got.Priority == c.priority && got.Type == c.kind
}

// kernelRule is a rule as the kernel shows it.
type kernelRule struct {
	comment string
	exprs   []byte // the netlink attributes of the expressions, as they came
}

// rulesInKernel reads the rules of all chains of a table in one dump.
func (f *Firewall) rulesInKernel(ctx context.Context, table string) (map[string][]kernelRule, error) {
	msgs, err := f.ask(ctx, unix.NFT_MSG_GETRULE, netlink.Dump, []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)},
	})
	if err != nil {
		return nil, explain(fmt.Errorf("read rules of table inet %s: %w", table, err))
	}
	chains := make(map[string][]kernelRule)
	for _, m := range msgs {
		attrs, err := attributes(m)
		if err != nil {
			return nil, fmt.Errorf("read rules of table inet %s: %w", table, err)
		}
		var chain string
		var r kernelRule
		for _, a := range attrs {
			switch a.kind {
			case unix.NFTA_RULE_CHAIN:
				chain = text(a.data)
			case unix.NFTA_RULE_EXPRESSIONS:
				r.exprs = a.data
			case unix.NFTA_RULE_USERDATA:
				r.comment = comment(a.data)
			}
		}
		chains[chain] = append(chains[chain], r)
	}
	return chains, nil
}

// comment finds the comment in a rule's user data, which anyone with
// CAP_NET_ADMIN may have written. The library's reader trusts the lengths in it.
func comment(data []byte) string {
	for len(data) >= 2 {
		kind, rest := data[0], data[2:]
		n := int(data[1])
		if n > len(rest) {
			return ""
		}
		if userdata.Type(kind) == userdata.TypeComment {
			return text(rest[:n])
		}
		data = rest[n:]
	}
	return ""
}

// explain gives the errors that an operator can do something about a hint.
func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(err, fault.Denied, "the kernel refused a change of its firewall").
			WithHint("Run the process with CAP_NET_ADMIN, in the network namespace it is to guard.")
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fault.Wrap(err, fault.Unimplemented, "this kernel lacks nftables or a part of it").
			WithHint("Load or build nf_tables, nft_ct, nft_masq, nft_reject_inet and nf_nat.")
	}
	return err
}
