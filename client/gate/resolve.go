package gate

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/fault"
)

// lookupTimeout bounds one look-up. It is short: what was remembered serves as well.
const lookupTimeout = 4 * time.Second

// Resolver finds the addresses of the server. While a tunnel is up the machine's
// own resolvers lead into it, so look-ups go around it, to the resolvers that the
// machine had before, and the last answer stands when they are silent.
type Resolver struct {
	mark uint32

	mu         sync.Mutex
	servers    []netip.Addr // nil: the machine's
	remembered map[string][]netip.Addr
}

// NewResolver makes a Resolver that starts with what was remembered.
func NewResolver(mark uint32, remembered map[string][]netip.Addr) *Resolver {
	r := &Resolver{mark: mark, remembered: map[string][]netip.Addr{}}
	for host, addrs := range remembered {
		r.remembered[host] = slices.Clone(addrs)
	}
	return r
}

// Use sets the name servers to ask; none means those of the machine.
func (r *Resolver) Use(servers []netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers = slices.Clone(servers)
}

// Remembered gives the last good answers.
func (r *Resolver) Remembered() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string][]netip.Addr, len(r.remembered))
	for host, addrs := range r.remembered {
		out[host] = slices.Clone(addrs)
	}
	return out
}

// Lookup gives the addresses of a host name or of an address itself.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := r.ask(ctx, host)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && len(addrs) > 0 {
		r.remembered[host] = addrs
		return slices.Clone(addrs), nil
	}
	if old := r.remembered[host]; len(old) > 0 {
		return slices.Clone(old), nil
	}
	return nil, fault.Wrap(err, fault.Unavailable, "the name %s cannot be looked up", host).
		WithHint("check the name, and that this machine has a network")
}

func (r *Resolver) ask(ctx context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	servers := r.servers
	r.mu.Unlock()
	res := &net.Resolver{PreferGo: true}
	d := markedDialer(r.mark)
	var turn atomic.Int64
	res.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if len(servers) > 0 {
			// Each attempt of the library asks the next server.
			s := servers[int(turn.Add(1)-1)%len(servers)]
			address = net.JoinHostPort(s.String(), "53")
		}
		return d.DialContext(ctx, network, address)
	}
	addrs, err := res.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	// In one order always, so that who tries the next one does not try the same:
	// the library sorts by what routes there are at the moment.
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), err
}
