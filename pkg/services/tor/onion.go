package tor

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	api "vpnd/pkg/api/tor"
)

// listOnions lists the onion names that stand for an address.
func (s *Service) listOnions(ctx context.Context) ([]api.Onion, error) {
	c, err := s.tor()
	if err != nil {
		return nil, err
	}
	all, err := c.AddressMappings(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Onion{}
	for _, m := range all {
		if a, err := netip.ParseAddr(m.From); err == nil && strings.HasSuffix(m.To, ".onion") {
			out = append(out, api.Onion{Name: m.To, Virtual: a})
		}
	}
	slices.SortFunc(out, func(x, y api.Onion) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.Virtual.Compare(y.Virtual))
	})
	return out, nil
}
