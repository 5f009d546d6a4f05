//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/nft"
)

// torSwap is one change of lane tor's rules between blocked and up, beside one
// batch of rules sent by a program that does nothing else. Each has a namespace
// of its own: they would see the other's batches as a stranger's.
func torSwap(ctx context.Context, s *suite) error {
	fw, ns, err := swapped()
	if err != nil {
		return err
	}
	defer ns.Close()
	floor, floorNS, err := newRulesFloor()
	if err != nil {
		return err
	}
	defer floorNS.Close()
	defer floor.Close()
	states := []nft.State{{VPN: nft.VPNUp, Tor: nft.TorUp}, {VPN: nft.VPNUp}}
	var swaps, batches samples
	for i := range pick(s.options, 1000, 200) {
		swap := func() error {
			_, err := fw.Apply(ctx, states[i%2])
			return err
		}
		if i < 2 {
			err = swap() // the table is made, and the batch
		} else {
			err = swaps.timed(swap)
		}
		if err != nil {
			return err
		}
		if err := batches.timed(floor.batch); err != nil {
			return fmt.Errorf("a bare batch of rules: %w", err)
		}
	}
	r := result{
		Name: "tor-swap", What: "lane tor's rules, blocked to up or back, p50", Unit: inMillis,
		Value: swaps.median(), Floor: batches.median(),
		FloorIs: "one netlink batch that empties a chain and adds five rules, on an open socket",
	}
	r.goal("5x", r.ratio() <= 5)
	r.keep("swap", swaps)
	r.keep("floor", batches)
	r.note("%s; floor %s", swaps.spread(), batches.spread())
	s.report.add(r)
	return nil
}

// swapped is a firewall for an empty namespace.
func swapped() (*nft.Firewall, *netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, nil, err
	}
	lane := func(name string, n byte) nft.Lane {
		v4 := netip.AddrFrom4([4]byte{10, n, 0, 1})
		v6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: n, 15: 1})
		return nft.Lane{Interface: name, Gateway4: v4, Gateway6: v6,
			Prefix4: netip.PrefixFrom(v4, 16).Masked(), Prefix6: netip.PrefixFrom(v6, 64).Masked()}
	}
	fw, err := nft.New(nft.Config{
		NetNS: ns.Fd(), VPN: lane("wg0", 8), Tor: lane("wg1", 9),
		ControlPort: apiPort, TransPort: 9040, DNSPort: 5353, PagePort: 9080,
	})
	if err != nil {
		_ = ns.Close()
	}
	return fw, ns, err
}

// rulesFloor sends rules with nothing of ours in between.
type rulesFloor struct {
	*netlink.Conn
	messages []netlink.Message
}

func newRulesFloor() (*rulesFloor, *netns.NS, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, nil, err
	}
	f := &rulesFloor{}
	f.Conn, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.Fd()})
	if err == nil {
		f.messages, err = rulesBatch(true)
	}
	if err == nil {
		err = f.batch()
	}
	if err == nil {
		f.messages, err = rulesBatch(false)
	}
	if err != nil {
		_ = ns.Close()
		return nil, nil, fmt.Errorf("a bare table: %w", err)
	}
	return f, ns, nil
}

// batch sends the messages and waits for the kernel's answer to the last rule.
func (f *rulesFloor) batch() error {
	if _, err := f.SendMessages(append([]netlink.Message(nil), f.messages...)); err != nil {
		return err
	}
	_, err := f.Receive()
	return err
}

// rulesBatch makes a table with a chain, or empties the chain and adds rules.
func rulesBatch(table bool) ([]netlink.Message, error) {
	var failed error
	message := func(kind uint16, flags netlink.HeaderFlags, attrs func(*netlink.AttributeEncoder)) netlink.Message {
		ae := netlink.NewAttributeEncoder()
		ae.ByteOrder = binary.BigEndian
		attrs(ae)
		body, err := ae.Encode()
		if err != nil {
			failed = err
		}
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
			Data:   append([]byte{unix.NFPROTO_INET, 0, 0, 0}, body...),
		}
	}
	bound := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data: []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	batch := []netlink.Message{bound(unix.NFNL_MSG_BATCH_BEGIN)}
	if table {
		batch = append(batch,
			message(unix.NFT_MSG_NEWTABLE, netlink.Create, func(ae *netlink.AttributeEncoder) { ae.String(unix.NFTA_TABLE_NAME, "floor") }),
			message(unix.NFT_MSG_NEWCHAIN, netlink.Create, func(ae *netlink.AttributeEncoder) {
				ae.String(unix.NFTA_CHAIN_TABLE, "floor")
				ae.String(unix.NFTA_CHAIN_NAME, "rules")
			}))
	} else {
		where := func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_RULE_TABLE, "floor")
			ae.String(unix.NFTA_RULE_CHAIN, "rules")
		}
		batch = append(batch, message(unix.NFT_MSG_DELRULE, 0, where))
		for range 5 {
			batch = append(batch, message(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(ae *netlink.AttributeEncoder) {
				where(ae)
				ae.Nested(unix.NFTA_RULE_EXPRESSIONS, dropFromWG1)
			}))
		}
	}
	batch[len(batch)-1].Header.Flags |= netlink.Acknowledge
	return append(batch, bound(unix.NFNL_MSG_BATCH_END)), failed
}

// dropFromWG1 is: iifname "wg1" drop.
func dropFromWG1(ae *netlink.AttributeEncoder) error {
	expression := func(name string, data func(*netlink.AttributeEncoder) error) {
		ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
			ae.String(unix.NFTA_EXPR_NAME, name)
			ae.Nested(unix.NFTA_EXPR_DATA, data)
			return nil
		})
	}
	expression("meta", func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(unix.NFTA_META_KEY, unix.NFT_META_IIFNAME)
		ae.Uint32(unix.NFTA_META_DREG, unix.NFT_REG_1)
		return nil
	})
	expression("cmp", func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		ae.Uint32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		ae.Nested(unix.NFTA_CMP_DATA, func(ae *netlink.AttributeEncoder) error {
			ae.Bytes(unix.NFTA_DATA_VALUE, append([]byte("wg1"), make([]byte, unix.IFNAMSIZ-3)...))
			return nil
		})
		return nil
	})
	expression("immediate", func(ae *netlink.AttributeEncoder) error {
		ae.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		ae.Nested(unix.NFTA_IMMEDIATE_DATA, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(unix.NFTA_DATA_VERDICT, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(unix.NFTA_VERDICT_CODE, 0) // NF_DROP
				return nil
			})
			return nil
		})
		return nil
	})
	return nil
}
