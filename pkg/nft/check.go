//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Drift is how the kernel differs from what was applied last.
type Drift struct {
	Problems []string // one sentence each; empty when there is no difference
}

// OK tells that there is no difference.
func (d Drift) OK() bool { return len(d.Problems) == 0 }

// String gives all problems in one line, or "none".
func (d Drift) String() string {
	if d.OK() {
		return "none"
	}
	return strings.Join(d.Problems, "; ")
}

// Check compares the kernel with the last Apply. Apply with the same state puts
// right whatever it finds. While nobody changes any nftables rule of the host
// it is a single question to the kernel; otherwise it reads the whole table.
func (f *Firewall) Check(ctx context.Context) (_ Drift, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUpAfter(&err)
	return f.check(ctx)
}

// check is Check; the caller holds mu.
func (f *Firewall) check(ctx context.Context) (Drift, error) {
	if f.want == nil {
		return Drift{Problems: []string{"no state was applied yet"}}, nil
	}
	// Reading is several questions. Somebody's change between them would look like
	// damage; after a few rounds the last answer has to do.
	const rounds = 3
	var drift Drift
	for range rounds {
		before, err := f.generation(ctx)
		if err != nil {
			return Drift{}, err
		}
		switch before {
		case f.verified:
			return Drift{}, nil
		case f.foundAt:
			return f.found, nil
		}
		if drift, err = f.compare(ctx); err != nil {
			return Drift{}, err
		}
		after, err := f.generation(ctx)
		if err != nil {
			return Drift{}, err
		}
		if after == before {
			if drift.OK() {
				f.verified, f.foundAt = after, 0
			} else {
				f.found, f.foundAt = drift, after
			}
			break
		}
	}
	return drift, nil
}

// compare reads the tables and says what is wrong with them.
func (f *Firewall) compare(ctx context.Context) (Drift, error) {
	var d Drift
	for _, want := range f.cfg.tables() {
		if err := f.compareTable(ctx, want, &d); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (f *Firewall) compareTable(ctx context.Context, t tableSpec, d *Drift) error {
	problem := func(format string, args ...any) { d.Problems = append(d.Problems, fmt.Sprintf(format, args...)) }

	conn, err := f.conn(ctx)
	if err != nil {
		return err
	}
	table, err := conn.ListTableOfFamily(t.name, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		f.hangUp()
		problem("table inet %s is missing", t.name)
		return nil
	}
	if err != nil {
		return explain(fmt.Errorf("read table inet %s: %w", t.name, err))
	}
	if table.Flags != 0 {
		problem("table inet %s has a flag set, such as dormant", t.name)
	}

	chains, err := f.chains(conn)
	if err != nil {
		return err
	}
	have := t.own(chains)
	got, err := f.rulesInKernel(ctx, t.name)
	if err != nil {
		return err
	}
	want := t.rules(*f.want)
	for _, spec := range t.chains {
		c := have[spec.name]
		delete(have, spec.name)
		if c == nil {
			problem("chain %s is missing", spec.name)
			continue
		}
		if !spec.sameHook(c) {
			problem("chain %s is at another hook or priority", spec.name)
		}
		if spec.base() && (c.Policy == nil || *c.Policy != spec.policy) {
			problem("chain %s has another policy", spec.name)
		}
		what, err := compareRules(want[spec.name], got[spec.name])
		if err != nil {
			return err
		}
		if what != "" {
			problem("chain %s: %s", spec.name, what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		problem("chain %s is not ours", name)
	}
	return nil
}

// compareRules says where the first difference is, or "".
func compareRules(want rules, got []kernelRule) (string, error) {
	for i, w := range want {
		if len(got) == 0 {
			return "all rules are missing", nil
		}
		if i >= len(got) {
			return fmt.Sprintf("rule %d (%s) is missing", i+1, w.comment), nil
		}
		same, err := sameRule(w.exprs, got[i].exprs)
		if err != nil {
			return "", fmt.Errorf("compare rule %d (%s): %w", i+1, w.comment, err)
		}
		if !same {
			return difference(i, want, got), nil
		}
	}
	if len(got) > len(want) {
		return fmt.Sprintf("rule %d%s is not ours", len(want)+1, named(got[len(want)])), nil
	}
	return "", nil
}

// difference words the case that rule i is not the one that should be there.
func difference(i int, want rules, got []kernelRule) string {
	switch {
	case len(got) > len(want):
		return fmt.Sprintf("rule %d%s is not ours, %d are too many", i+1, named(got[i]), len(got)-len(want))
	case len(got) < len(want):
		return fmt.Sprintf("rule %d (%s) is missing", i+1, want[i].comment)
	}
	return fmt.Sprintf("rule %d (%s) was changed", i+1, want[i].comment)
}

func named(r kernelRule) string {
	if r.comment == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", r.comment)
}
