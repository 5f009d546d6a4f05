package torctl

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"vpnd/pkg/fault"
	"vpnd/pkg/torpath"
)

// maxKeys is how many keys go into one GETINFO.
const maxKeys = 300

// Consensus asks tor for everything that choosing a path needs. Relays whose
// microdescriptor tor lacks are left out, because it cannot extend to them.
// Guards that are not in the consensus (bridges) are in it as guards only, with
// no address known. Without a GeoIP file no relay has a country. Its commands
// take long and others of this client wait: use a client of its own.
func (c *Client) Consensus(ctx context.Context) (*torpath.Consensus, error) {
	relays, err := c.Relays(ctx)
	if err != nil {
		return nil, err
	}
	distinct, err := c.GetConf(ctx, "EnforceDistinctSubnets")
	if err != nil {
		return nil, err
	}
	guards, err := c.EntryGuards(ctx)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, len(relays))
	listed := make(map[string]bool, len(relays))
	for i, r := range relays {
		addrs[i] = r.Addr
		listed[r.Fingerprint] = true
	}
	countries, err := c.CountryAll(ctx, addrs)
	if err != nil && (c.Err() != nil || ctx.Err() != nil) {
		return nil, err
	}
	var all []torpath.Relay
	for _, r := range relays {
		if r.Described {
			all = append(all, r.forPath(countries[r.Addr]))
		}
	}
	for _, g := range guards {
		if !listed[g.Fingerprint] {
			all = append(all, torpath.Relay{Fingerprint: g.Fingerprint})
		}
	}
	return torpath.New(all, !slices.Equal(distinct, []string{"0"})), nil
}

func (r Relay) forPath(country string) torpath.Relay {
	has := func(flag string) bool { return slices.Contains(r.Flags, flag) }
	return torpath.Relay{Fingerprint: r.Fingerprint, Nickname: r.Nickname, Addr: r.Addr, Addr6: r.Addr6, Country: country,
		Flags: r.Flags, Bandwidth: r.Bandwidth, Ports: r.Ports, Ports6: r.Ports6, Family: r.Family,
		Exit:  has("Exit") && !has("BadExit") && has("Running") && has("Valid") && has("Fast") && (r.Ports.Any() || r.Ports6.Any()),
		Exit6: r.Ports6.Any()}
}

// CountryAll is Country for many addresses, a few hundred in each command.
// Those of no known country are not in the map.
func (c *Client) CountryAll(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]string, error) {
	all := make(map[netip.Addr]string, len(addrs))
	for part := range slices.Chunk(addrs, maxKeys) {
		keys := make([]string, len(part))
		for i, a := range part {
			if !a.IsValid() || a.Zone() != "" {
				return nil, fault.InvalidField("addrs", "%q is not an address", a)
			}
			keys[i] = "ip-to-country/" + a.Unmap().String()
		}
		values, err := c.getInfo(ctx, keys...)
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			if v == "??" {
				continue
			}
			if CheckCountry(v) != nil {
				return nil, garbled("country")
			}
			all[part[i]] = strings.ToLower(v)
		}
	}
	return all, nil
}
