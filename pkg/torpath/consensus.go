package torpath

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Relay is one relay of the consensus.
type Relay struct {
	Fingerprint, Nickname string
	Addr, Addr6           netip.Addr
	Country               string // lower case, "" unknown
	Flags                 []string
	Bandwidth             int64
	Exit                  bool       // usable as an exit
	Exit6                 bool       // its policy lets IPv6 targets out
	Ports                 PortPolicy // towards IPv4 targets
	Ports6                PortPolicy // towards IPv6 targets
	// Family is what the relay declares: fingerprints, nicknames, and the ids of
	// families ("ed25519:..."), which relays share.
	Family []string
}

// node is a relay with what the rules compare.
type node struct {
	Relay
	weight   int64
	middle   bool
	net4     netip.Prefix
	net6     netip.Prefix
	key      string          // as a family names the relay by fingerprint
	nick     string          // as a family names it by nickname, "" never
	declared map[string]bool // family keys; nil without a family
	ids      []string        // those that are ids of families
}

// Consensus is the relays to choose from, and the rules. Make it with New.
type Consensus struct {
	nodes   []node // fastest first
	byFP    map[string]int
	exits   []int
	middles []int
	sums    []int64 // of the middles' weights, up to and with each
}

// maxWeight keeps the sum of all weights far from overflow.
const maxWeight = 1 << 40

// New takes the relays; of two with the same fingerprint the faster counts. A
// relay that is not Running, Valid and Fast is neither middle nor exit, but may
// be a guard, as a bridge is. distinctSubnets is tor's EnforceDistinctSubnets:
// no two relays of a path in one IPv4 /16 or IPv6 /32.
func New(relays []Relay, distinctSubnets bool) *Consensus {
	c := &Consensus{byFP: make(map[string]int, len(relays))}
	sorted := slices.Clone(relays)
	slices.SortStableFunc(sorted, func(a, b Relay) int {
		return cmp.Or(cmp.Compare(b.Bandwidth, a.Bandwidth), strings.Compare(a.Fingerprint, b.Fingerprint))
	})
	total := int64(0)
	for _, r := range sorted {
		r.Fingerprint = strings.ToUpper(strings.TrimPrefix(r.Fingerprint, "$"))
		if _, dup := c.byFP[r.Fingerprint]; dup {
			continue
		}
		n := node{Relay: r, weight: min(max(r.Bandwidth, 1), maxWeight), middle: usable(r.Flags),
			key: "$" + r.Fingerprint, nick: strings.ToLower(r.Nickname)}
		if distinctSubnets {
			n.net4, n.net6 = subnet(r.Addr), subnet(r.Addr6)
		}
		for _, f := range r.Family {
			if n.declared == nil {
				n.declared = map[string]bool{}
			}
			k := familyKey(f)
			n.declared[k] = true
			if strings.Contains(k, ":") {
				n.ids = append(n.ids, k)
			}
		}
		i := len(c.nodes)
		c.byFP[r.Fingerprint] = i
		if n.middle {
			total += n.weight
			c.middles, c.sums = append(c.middles, i), append(c.sums, total)
		}
		if n.middle && r.Exit {
			c.exits = append(c.exits, i)
		}
		c.nodes = append(c.nodes, n)
	}
	return c
}

func usable(flags []string) bool {
	return slices.Contains(flags, "Running") && slices.Contains(flags, "Valid") && slices.Contains(flags, "Fast")
}

// subnet is the network that one operator is taken to hold: path-spec, section
// 2.2. The zero Prefix stands for no address.
func subnet(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is4() {
		bits = 16
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// familyKey is the form in which families are compared: "$FP" in upper case
// without a nickname, the id of a family as it is, a nickname in lower case.
func familyKey(s string) string {
	if strings.Contains(s, ":") {
		return s
	}
	id, _, _ := strings.Cut(s, "~")
	id, _, _ = strings.Cut(id, "=")
	if fp, ok := fingerprint(id); ok {
		return "$" + fp
	}
	return strings.ToLower(s)
}

// declares tells whether a names b as family.
func (a *node) declares(b *node) bool {
	return a.declared[b.key] || b.nick != "" && a.declared[b.nick]
}

// apart tells whether a and b may be in one path.
func apart(a, b *node) bool {
	if a.Fingerprint == b.Fingerprint || a.net4.IsValid() && a.net4 == b.net4 || a.net6.IsValid() && a.net6 == b.net6 {
		return false
	}
	if a.declared == nil || b.declared == nil {
		return true
	}
	if a.declares(b) && b.declares(a) {
		return false
	}
	return !slices.ContainsFunc(a.ids, func(id string) bool { return b.declared[id] })
}

// Relays lists all relays, fastest first. Their slices belong to the consensus.
func (c *Consensus) Relays() []Relay {
	all := make([]Relay, len(c.nodes))
	for i := range c.nodes {
		all[i] = c.nodes[i].Relay
	}
	return all
}

// Relay finds a relay by its fingerprint, with or without $.
func (c *Consensus) Relay(fingerprint string) (Relay, bool) {
	n := c.find(fingerprint)
	if n == nil {
		return Relay{}, false
	}
	return n.Relay, true
}

func (c *Consensus) find(fingerprint string) *node {
	i, ok := c.byFP[strings.ToUpper(strings.TrimPrefix(fingerprint, "$"))]
	if !ok {
		return nil
	}
	return &c.nodes[i]
}

// Usable counts the running exits that a choice allows.
func (c *Consensus) Usable(e Exits) int {
	count := 0
	for _, i := range c.exits {
		if e.allows(&c.nodes[i].Relay) {
			count++
		}
	}
	return count
}
