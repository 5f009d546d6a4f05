//go:build linux

package nft

import (
	"context"

	"vpnd/pkg/fault"
)

// Adopt takes s for what was applied last if the kernel holds exactly its
// rules, and tells whether it does. It changes nothing in the kernel: what an
// earlier process left goes on.
func (f *Firewall) Adopt(ctx context.Context, s State) (held bool, err error) {
	if !s.valid() || !f.cfg.valid(s) {
		return false, fault.New(fault.Invalid, "firewall: no such state: %s", s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.hangUpAfter(&err)
	last, verified := f.want, f.verified
	f.want, f.verified, f.foundAt = &s, 0, 0
	drift, err := f.check(ctx)
	if err == nil && drift.OK() {
		return true, nil
	}
	f.want, f.verified, f.foundAt = last, verified, 0
	return false, err
}
