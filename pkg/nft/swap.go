//go:build linux

package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// transition is from one state to another.
type transition struct{ from, to State }

// swap goes from the state that the kernel is known to hold to another by
// replacing the content of the chains that differ, in one batch. The kernel takes
// the batch only if nobody has changed anything since (NFNL_BATCH_GENID); otherwise
// nothing happens and done is false. No question is asked before or after.
func (f *Firewall) swap(ctx context.Context, t transition) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	batch, err := f.transition(t)
	if err != nil {
		return false, err
	}
	if len(batch) == 0 {
		now, err := f.generation(ctx)
		return err == nil && now == f.verified, err
	}
	if _, err := f.conn(ctx); err != nil {
		return false, err
	}
	batch = slices.Clone(batch) // sending numbers the messages
	batch[0].Data = batchHeader(netlink.Attribute{
		Type: unix.NFNL_BATCH_GENID, Data: binary.BigEndian.AppendUint32(nil, uint32(f.verified)),
	})
	before := f.verified
	f.verified = 0
	if _, err = f.socket.SendMessages(batch); err == nil {
		// One answer: the first error of the batch, or the receipt for its last rule.
		_, err = f.socket.Receive()
	}
	switch {
	case errors.Is(err, unix.ERESTART):
		return false, nil
	case err != nil:
		return false, explain(fmt.Errorf("apply firewall state (%s): %w", t.to, err))
	}
	f.verified = before.next() // every batch is one generation
	return true, nil
}

// transition gives the batch, which is made once; empty when the rules are the same.
func (f *Firewall) transition(t transition) ([]netlink.Message, error) {
	if batch, ok := f.transitions[t]; ok {
		return batch, nil
	}
	var batch []netlink.Message
	from, to := f.cfg.ruleset(t.from), f.cfg.ruleset(t.to)
	for _, spec := range chainSpecs() {
		rules := to[spec.name]
		if reflect.DeepEqual(from[spec.name], rules) {
			continue
		}
		flush, err := f.ruleMessage(unix.NFT_MSG_DELRULE, 0, spec.name)
		if err != nil {
			return nil, err
		}
		batch = append(batch, flush)
		for _, r := range rules {
			m, err := f.addRule(spec.name, r)
			if err != nil {
				return nil, fmt.Errorf("encode rule %q of %s: %w", r.comment, spec.name, err)
			}
			batch = append(batch, m)
		}
	}
	if n := len(batch); n > 0 {
		batch[n-1].Header.Flags |= netlink.Acknowledge
		batch = slices.Concat(
			[]netlink.Message{{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}}},
			batch,
			[]netlink.Message{{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batchHeader()}},
		)
	}
	if f.transitions == nil {
		f.transitions = make(map[transition][]netlink.Message)
	}
	f.transitions[t] = batch
	return batch, nil
}

// batchHeader is the body of the messages around a batch: whose it is.
func batchHeader(attrs ...netlink.Attribute) []byte {
	data, _ := netlink.MarshalAttributes(attrs) // fails beyond 64 KiB only
	return append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, data...)
}

// addRule encodes one rule for the end of a chain. The library does so too, but
// asks for an echo and a receipt of every rule, which is most of a batch's time.
func (f *Firewall) addRule(chain string, r rule) (netlink.Message, error) {
	list := make([]netlink.Attribute, len(r.exprs))
	for i, e := range r.exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return netlink.Message{}, err
		}
		list[i] = netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: b}
	}
	exprs, err := netlink.MarshalAttributes(list)
	if err != nil {
		return netlink.Message{}, err
	}
	return f.ruleMessage(unix.NFT_MSG_NEWRULE, netlink.Create|unix.NLM_F_APPEND, chain,
		netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: exprs},
		netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
}

// ruleMessage is a message about rules of a chain of our table.
func (f *Firewall) ruleMessage(kind netlink.HeaderType, flags netlink.HeaderFlags, chain string, more ...netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(append([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(f.cfg.Table), 0)},
		{Type: unix.NFTA_RULE_CHAIN, Data: append([]byte(chain), 0)},
	}, more...))
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: netlink.Request | flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	}, err
}
