package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"time"

	"vpnd/client/dns"
	"vpnd/pkg/fault"
	"vpnd/pkg/link"
	"vpnd/pkg/wgdev"
)

// firstKeepalive makes the device speak first when it is told no keepalive:
// without it there would be no handshake until somebody sends something.
const firstKeepalive = 25 * time.Second

// Tunnel is the machine's tunnel. Make it with New, end it with Down or Abandon.
type Tunnel struct {
	dir     string
	dns     *dns.Resolver
	journal Journal

	saved *Journal // what the file says; nil when there is none

	dev   *wgdev.Device
	links *link.Links
	cfg   Config
	// speaking tells that the keepalive is on only to make the device speak first.
	speaking bool
	// rx and tx are what removed peers had counted.
	rx, tx uint64
}

// New prepares a tunnel whose journal is in dir. What a dead process left is
// taken over as it is: blocked traffic stays blocked.
func New(dir string, r *dns.Resolver) (*Tunnel, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	t := &Tunnel{dir: dir, dns: r}
	j, err := ReadJournal(dir)
	if err != nil {
		return nil, err
	}
	if j != nil {
		t.journal, t.saved = *j, j
		if !j.Blocking() {
			t.journal.Routed = false
		}
	} else {
		t.journal.Servers = r.Servers()
	}
	return t, nil
}

// Blocking tells whether what the tunnel does not carry goes nowhere.
func (t *Tunnel) Blocking() bool { return t.journal.Blocking() }

// Nameservers are those that the machine asked before the tunnel.
func (t *Tunnel) Nameservers() []netip.Addr { return t.journal.Servers }

// save writes the journal when it says something new.
func (t *Tunnel) save() error {
	if t.saved != nil && reflect.DeepEqual(*t.saved, t.journal) {
		return nil
	}
	if err := t.journal.write(t.dir); err != nil {
		return err
	}
	j := t.journal
	t.saved = &j
	return nil
}

// allPrefixes is what a tunnel takes unless the server says otherwise.
var allPrefixes = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// Hold makes the interface of an agent that died again, without a peer, and leads
// what that agent blocked into it. It is blocked there just as well; but while
// rules lead to no interface at all, reverse path filtering, also in its loose
// mode, drops every answer to the calls that go around the tunnel.
func (t *Tunnel) Hold(ctx context.Context, key wgdev.PrivateKey) error {
	if !t.Blocking() || t.dev != nil {
		return nil
	}
	cfg := Config{Interface: t.journal.Interface, Key: key, MTU: defaultMTU}
	cfg.Peer.AllowedIPs = allPrefixes
	if err := t.open(cfg); err != nil {
		return err
	}
	if err := t.dev.Configure(ctx, wgdev.Config{PrivateKey: key, FirewallMark: Mark}); err != nil {
		return err
	}
	t.cfg = cfg
	return t.links.ApplyTunnel(ctx, t.routing(cfg.Interface))
}

// Connect makes the device, its peer and its addresses what cfg says, and has it
// begin with a handshake. Traffic is not led into it before Route, except where
// it already was.
func (t *Tunnel) Connect(ctx context.Context, cfg Config) error {
	if err := t.open(cfg); err != nil {
		return err
	}
	if err := t.dev.Configure(ctx, wgdev.Config{PrivateKey: cfg.Key, FirewallMark: Mark}); err != nil {
		return err
	}
	// The old peer goes first. Another lane's packets must not meet the new
	// addresses; and the same peer, kept, would go on using a session that the
	// server may have forgotten.
	if err := t.removePeers(ctx); err != nil {
		return err
	}
	err := t.links.Apply(ctx, link.Interface{Name: cfg.Interface, MTU: cfg.MTU, Addresses: cfg.Addresses, Up: true})
	if err != nil {
		return err
	}
	t.cfg = cfg
	if t.journal.Routed {
		// With the last IPv4 address of a lane went the routes into the interface.
		// The answer to the first handshake must find them: without, reverse path
		// filtering drops it, and the next try is five seconds away.
		if err := t.links.ApplyTunnel(ctx, t.routing(cfg.Interface)); err != nil {
			return err
		}
	}
	peer := cfg.Peer
	t.speaking = peer.Keepalive == 0
	if t.speaking {
		peer.Keepalive = firstKeepalive
	}
	if err := t.dev.Upsert(ctx, peer); err != nil {
		return err
	}
	if t.journal.Routed {
		return t.Route(ctx)
	}
	return nil
}

func (t *Tunnel) open(cfg Config) (err error) {
	if t.links == nil {
		if t.links, err = link.Open(); err != nil {
			return err
		}
	}
	if t.dev != nil && t.dev.Name() == cfg.Interface {
		_, err := t.links.Get(cfg.Interface)
		if !errors.Is(err, fault.NotFound) {
			return err
		}
		// Somebody has deleted the interface, and the device with it.
	}
	if err := checkReversePath(t.links, cfg.Peer.Endpoint.Addr()); err != nil {
		return err
	}
	if t.dev != nil {
		_ = t.dev.Close()
		t.dev = nil
	}
	t.journal.Boot, t.journal.Interface = bootID(), cfg.Interface
	if err := t.save(); err != nil {
		return err
	}
	t.dev, err = wgdev.NewInProcess(cfg.Interface, cfg.MTU)
	return err
}

// Route leads traffic and look-ups into the tunnel, and blocks what it does not
// carry. It may be repeated, and then mends what other programs have undone.
func (t *Tunnel) Route(ctx context.Context) error {
	if t.dev == nil {
		return errors.New("there is no device to route into")
	}
	if t.speaking {
		peer := t.cfg.Peer
		peer.Endpoint = netip.AddrPort{} // it may have moved since
		if err := t.dev.Upsert(ctx, peer); err != nil {
			return err
		}
		t.speaking = false
	}
	t.journal.Boot, t.journal.Routed = bootID(), true
	if err := t.save(); err != nil {
		return err
	}
	if err := t.links.ApplyTunnel(ctx, t.routing(t.cfg.Interface)); err != nil {
		return err
	}
	state, err := t.links.Get(t.cfg.Interface)
	if err != nil {
		return err
	}
	set := dns.Setting{Interface: t.cfg.Interface, Index: state.Index, Servers: t.cfg.DNS}
	return t.dns.Set(ctx, set, t.journal.DNS, func(r dns.Record) error {
		t.journal.DNS = &r
		return t.save()
	})
}

// removePeers keeps what they have counted.
func (t *Tunnel) removePeers(ctx context.Context) error {
	peers, err := t.dev.Peers(ctx)
	if err != nil {
		return err
	}
	for _, p := range peers {
		if err := t.dev.Remove(ctx, p.PublicKey); err != nil {
			return err
		}
		t.rx += p.RxBytes
		t.tx += p.TxBytes
	}
	return nil
}

func (t *Tunnel) routing(iface string) link.Tunnel {
	return link.Tunnel{Interface: iface, Table: Table, Mark: Mark, Prefixes: t.cfg.Peer.AllowedIPs, FailClosed: true}
}

// Stats tells how the peer is doing.
func (t *Tunnel) Stats(ctx context.Context) (Stats, error) {
	if t.dev == nil {
		return Stats{}, nil
	}
	peers, err := t.dev.Peers(ctx)
	if err != nil {
		return Stats{}, err
	}
	s := Stats{RxBytes: t.rx, TxBytes: t.tx}
	for _, p := range peers {
		s.LastHandshake = p.LastHandshake
		s.RxBytes += p.RxBytes
		s.TxBytes += p.TxBytes
	}
	return s, nil
}

// Silence removes the peer, so that nothing is sent to a server that has closed
// the session; what is blocked stays blocked.
func (t *Tunnel) Silence(ctx context.Context) error {
	if t.dev == nil {
		return nil
	}
	return t.removePeers(ctx)
}

// Down restores the machine: name servers, routes, rules, interface. All of it is
// tried, also when a part fails; then the journal stays for the next try.
func (t *Tunnel) Down(ctx context.Context) error {
	var errs []error
	if t.journal.DNS != nil {
		if err := t.dns.Undo(ctx, *t.journal.DNS); err != nil {
			errs = append(errs, err)
		}
	}
	if t.journal.Interface != "" {
		if err := t.unroute(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	if t.dev != nil {
		_ = t.dev.Close()
		t.dev = nil
	}
	if t.links != nil {
		t.links.Close()
		t.links = nil
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	t.journal, t.saved = Journal{Servers: t.journal.Servers}, nil
	return removeJournal(t.dir)
}

func (t *Tunnel) unroute(ctx context.Context) (err error) {
	if t.links == nil {
		if t.links, err = link.Open(); err != nil {
			return err
		}
	}
	return t.links.RemoveTunnel(ctx, t.routing(t.journal.Interface))
}
