package torpath

import (
	"errors"
	"math/rand/v2"
	"slices"

	"vpnd/pkg/fault"
)

// What Path could not find; both are fault.NotFound as well.
var (
	ErrNoExit = errors.New("no exit")
	ErrNoPath = errors.New("no path")
)

// Target is where a stream wants to go. With neither IPv4 nor IPv6 it is a host
// name, which the exit looks up. Port 0 is a lookup, and any exit does that.
type Target struct {
	IPv6, IPv4 bool
	Port       uint16
}

// reaches tells whether the relay's policy lets the target out. A host name
// counts by the IPv4 policy, as tor counts it.
func (r *Relay) reaches(t Target) bool {
	switch v4 := t.IPv4 || !t.IPv6; {
	case t.Port == 0:
		return !t.IPv6 || t.IPv4 || r.Exit6
	case v4 && r.Ports.Allows(t.Port):
		return true
	}
	return t.IPv6 && r.Exit6 && r.Ports6.Allows(t.Port)
}

// Path chooses guard, middle and exit, as fingerprints. guards are those that
// tor uses now, best first; the first with which a path exists is taken, and
// one that the consensus does not know is passed over. The exit is one that e
// allows, that reaches t and whose fingerprint (upper case) is not in avoid.
// Exit and middle are drawn by bandwidth, and are guards in use only where the
// guard leaves no other; likewise the middle is one to avoid. The same arguments and the same state of rnd give the
// same path.
//
// NotFound means with the reason no_exit (ErrNoExit) that no exit matches, and
// with no_path (ErrNoPath) that none that does fits any guard and middle.
func (c *Consensus) Path(guards []string, e Exits, t Target, avoid map[string]bool, rnd *rand.Rand) (path []string, err error) {
	inUse := make(map[string]bool, len(guards))
	var entries []*node
	for _, g := range guards {
		if n := c.find(g); n != nil && !inUse[n.Fingerprint] {
			inUse[n.Fingerprint] = true
			entries = append(entries, n)
		}
	}
	var exits []*node
	for _, i := range c.exits {
		if n := &c.nodes[i]; e.allows(&n.Relay) && n.reaches(t) && !avoid[n.Fingerprint] {
			exits = append(exits, n)
		}
	}
	if len(exits) == 0 {
		return nil, fault.Wrap(ErrNoExit, fault.NotFound, "no running exit matches the choice and the target").WithReason("no_exit").
			WithHint("allow more countries or relays")
	}
	for _, guard := range entries {
		if middle, exit := c.complete(guard, exits, inUse, avoid, rnd); exit != nil {
			return []string{guard.Fingerprint, middle.Fingerprint, exit.Fingerprint}, nil
		}
	}
	return nil, fault.Wrap(ErrNoPath, fault.NotFound, "no guard and middle go with the exits that match").WithReason("no_path").
		WithHint("allow more countries or relays, or wait until tor knows more of the network")
}

// complete finds an exit and a middle for a guard.
func (c *Consensus) complete(guard *node, exits []*node, inUse, avoid map[string]bool, rnd *rand.Rand) (middle, exit *node) {
	for _, reuse := range []bool{false, true} {
		var fit []*node
		for _, n := range exits {
			if inUse[n.Fingerprint] == reuse && apart(guard, n) {
				fit = append(fit, n)
			}
		}
		for len(fit) > 0 {
			i := draw(fit, rnd)
			if middle := c.middle(guard, fit[i], inUse, avoid, rnd); middle != nil {
				return middle, fit[i]
			}
			fit = slices.Delete(fit, i, i+1)
		}
	}
	return nil, nil
}

// tries is how many middles are drawn from all before those that fit are
// counted out; nearly always the first fits. A draw that is repeated until it
// fits has the same distribution as one among those that fit.
const tries = 32

func (c *Consensus) middle(guard, exit *node, inUse, avoid map[string]bool, rnd *rand.Rand) *node {
	for range min(tries, len(c.middles)) {
		at, _ := slices.BinarySearch(c.sums, rnd.Int64N(c.sums[len(c.sums)-1])+1)
		if n := &c.nodes[c.middles[at]]; !inUse[n.Fingerprint] && !avoid[n.Fingerprint] && apart(guard, n) && apart(exit, n) {
			return n
		}
	}
	var ranks [3][]*node // to be avoided comes before in use
	for _, i := range c.middles {
		n := &c.nodes[i]
		switch {
		case !apart(guard, n) || !apart(exit, n):
		case inUse[n.Fingerprint]:
			ranks[2] = append(ranks[2], n)
		case avoid[n.Fingerprint]:
			ranks[1] = append(ranks[1], n)
		default:
			ranks[0] = append(ranks[0], n)
		}
	}
	for _, fit := range ranks {
		if len(fit) > 0 {
			return fit[draw(fit, rnd)]
		}
	}
	return nil
}

// draw picks an index by weight; list is not empty.
func draw(list []*node, rnd *rand.Rand) int {
	total := int64(0)
	for _, n := range list {
		total += n.weight
	}
	at := rnd.Int64N(total)
	for i, n := range list {
		if at -= n.weight; at < 0 {
			return i
		}
	}
	panic("unreachable: the weights add up to the total")
}
