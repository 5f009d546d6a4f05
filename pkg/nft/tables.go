//go:build linux

package nft

import (
	"github.com/google/nftables"
)

// tableSpec is one table as it must be in the kernel.
type tableSpec struct {
	name     string
	canary   bool
	counters []string
	chains   []chainSpec
	rules    func(State) map[string]rules
}

// tables lists ours: the one that decides, and the one that counts.
func (c Config) tables() []tableSpec {
	main := tableSpec{name: c.Table, chains: chainSpecs(), rules: c.ruleset}
	for _, r := range Reasons() {
		main.counters = append(main.counters, string(r))
	}
	if !c.VPN.hasCanary() {
		return []tableSpec{main}
	}
	return []tableSpec{main, {
		name: c.canaryTable(), canary: true, counters: canaryCounters(), chains: canaryChains(),
		rules: func(State) map[string]rules { return c.canaryRules() },
	}}
}

// tableNames lists the names that are ours, whether we use both or not.
func (c Config) tableNames() []string { return []string{c.Table, c.canaryTable()} }

// own gives the chains of the table, also those that are not ours.
func (t tableSpec) own(chains []*nftables.Chain) map[string]*nftables.Chain {
	own := make(map[string]*nftables.Chain, len(chains))
	for _, c := range chains {
		if c.Table.Name == t.name {
			own[c.Name] = c
		}
	}
	return own
}

// compareChains tells whether the table has nothing yet, and whether it has
// something that adding ours cannot put right: a chain that is not ours, or one
// of ours at another hook.
func (t tableSpec) compareChains(chains []*nftables.Chain) (empty, alien bool) {
	own := t.own(chains)
	for _, c := range own {
		alien = alien || !t.has(c)
	}
	return len(own) == 0, alien
}

func (t tableSpec) has(c *nftables.Chain) bool {
	for _, spec := range t.chains {
		if spec.name == c.Name {
			return spec.sameHook(c)
		}
	}
	return false
}
