package torctl

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cretz/bine/control"

	"vpnd/pkg/fault"
)

// GetConf asks for the values of one option, in order; none when it is at a
// default that has no value.
func (c *Client) GetConf(ctx context.Context, option string) ([]string, error) {
	if !isKey(strings.ToUpper(option)) {
		return nil, fault.InvalidField("option", "%q is no option", option)
	}
	var values []string
	err := c.do(ctx, "GETCONF "+option, func(r *control.Response) error {
		for _, line := range append(r.Data, r.Reply) {
			name, value, set := strings.Cut(line, "=")
			if !strings.EqualFold(name, option) {
				return fmt.Errorf("GETCONF %s: another option came", option)
			}
			if !set {
				continue
			}
			if strings.HasPrefix(value, `"`) {
				v, rest, err := unquote(value)
				if err != nil || rest != "" {
					return fmt.Errorf("GETCONF %s: a value that cannot be read", option)
				}
				value = v
			}
			values = append(values, value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return values, nil
}

// Address asks for tor's guess of this machine's address as the internet sees
// it. Unavailable while tor has none, which for a client may be for ever.
func (c *Client) Address(ctx context.Context) (netip.Addr, error) {
	v, err := c.getInfo(ctx, "address")
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(v[0])
	if err != nil {
		return netip.Addr{}, garbled("address")
	}
	return a, nil
}

// Guard is one relay that tor has sampled as an entry guard.
type Guard struct {
	Fingerprint string
	// State: up (tor uses or would use it), never-connected, down (tor could
	// not reach it), unusable (left the consensus, or the configuration forbids it).
	State string
}

// EntryGuards lists tor's guards by state: those that are up first, then
// never-connected, down, unusable, each in tor's own order, which is the order
// of sampling and not of use. The guards in use are the first hops of circuits.
func (c *Client) EntryGuards(ctx context.Context) ([]Guard, error) {
	v, err := c.lines(ctx, "entry-guards")
	if err != nil {
		return nil, err
	}
	all, ok := parseGuards(v)
	if !ok {
		return nil, garbled("list of guards")
	}
	return all, nil
}

// parseGuards reads "$FP~nickname state [time]" lines, control-spec section 3.9.
func parseGuards(lines []string) ([]Guard, bool) {
	var all []Guard
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, false
		}
		fp := strings.TrimPrefix(f[0], "$")
		if i := strings.IndexAny(fp, "~="); i >= 0 {
			fp = fp[:i]
		}
		if CheckFingerprint(fp) != nil {
			return nil, false
		}
		all = append(all, Guard{strings.ToUpper(fp), f[1]})
	}
	order := []string{"up", "never-connected", "down", "unusable"}
	rank := func(g Guard) int {
		if i := slices.Index(order, g.State); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(all, func(a, b Guard) int { return cmp.Compare(rank(a), rank(b)) })
	return all, true
}

// Mapping is one entry of tor's address map: what it replaces From with. For a
// name that DNSPort gave an automatic address, From is the address.
type Mapping struct {
	From, To string
	Expiry   time.Time // zero: never
}

// AddressMappings lists tor's address map.
func (c *Client) AddressMappings(ctx context.Context) ([]Mapping, error) {
	v, err := c.lines(ctx, "address-mappings/all")
	if err != nil {
		return nil, err
	}
	all, ok := parseMappings(v)
	if !ok {
		return nil, garbled("address map")
	}
	return all, nil
}

func parseMappings(lines []string) ([]Mapping, bool) {
	var all []Mapping
	for _, line := range lines {
		f, _, err := parseWords(strings.TrimSpace(line), 3)
		if err != nil || len(f) < 3 {
			return nil, false
		}
		m := Mapping{From: f[0], To: f[1]}
		if f[2] != "NEVER" {
			if m.Expiry, err = time.Parse(time.DateTime, f[2]); err != nil {
				return nil, false
			}
		}
		all = append(all, m)
	}
	return all, true
}
