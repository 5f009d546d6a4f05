package sessions_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
)

// outcome is what becomes of a call to a sibling.
type outcome int

const (
	answered outcome = iota
	refused          // nothing done
	lost             // done, but the answer never comes
	hung             // nothing done, no answer until the caller gives up
	doneHung         // done, no answer until the caller gives up
	cutOff           // the caller is a dead process
	slow             // done and answered after a while
	late             // done at once, answered after a while
)

const errorText = "sibling is down"

// siblings are users, auth, ipam and lanes in one. They outlive the processes
// of sessions that talk to them.
type siblings struct {
	mu   sync.Mutex
	fate func(op string) outcome // nil: everything is answered

	accounts map[id.User]*users.Account
	totals   map[id.User]users.Usage
	seq      int64 // of the latest report that was applied

	devices map[id.Device]id.User
	leases  map[id.Device]ipam.Lease
	given   int

	epoch  string
	epochs int
	synced bool
	byKey  map[string]id.Device // what the lanes process knows; lost when it restarts
	kernel map[string]*peer     // what the interfaces hold
	keys   map[lanes.Name]string
	calls  map[string]int

	laneState map[lanes.Name]string
	view      tor.LaneView
}

type peer struct {
	lanes.Peer
	vpn, tor  lanes.Counters
	handshake time.Time
	endpoint  string
}

func newSiblings() *siblings {
	f := &siblings{
		accounts: map[id.User]*users.Account{}, totals: map[id.User]users.Usage{}, devices: map[id.Device]id.User{},
		leases: map[id.Device]ipam.Lease{}, kernel: map[string]*peer{}, calls: map[string]int{},
		keys: map[lanes.Name]string{lanes.VPN: newKey(), lanes.Tor: newKey()},
	}
	f.laneState = map[lanes.Name]string{lanes.VPN: "up", lanes.Tor: "up"}
	f.view = tor.LaneView{State: "up", Exits: []string{"de"}, Strict: true, Country: "de"}
	f.restartLanes()
	return f
}

// restartLanes is a new process of lanes; the interfaces stay.
func (f *siblings) restartLanes() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epochs++
	f.epoch, f.synced, f.byKey = fmt.Sprint("epoch", f.epochs), false, map[string]id.Device{}
}

// wipeKernel is a new process of lanes that finds nothing.
func (f *siblings) wipeKernel() {
	f.restartLanes()
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.kernel)
}

func (f *siblings) addUser(u id.User, devices ...id.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts[u] = &users.Account{ID: u, Username: "name-" + string(u), Status: users.Active}
	for _, d := range devices {
		f.devices[d] = u
	}
}

func (f *siblings) setStatus(u id.User, s users.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts[u].Status = s
}

func (f *siblings) setFate(fate func(op string) outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fate = fate
}

// only fails the calls named, in the way named.
func only(o outcome, ops ...string) func(string) outcome {
	return func(op string) outcome {
		if slices.Contains(ops, op) {
			return o
		}
		return answered
	}
}

// traffic adds to the counters of a peer and makes a handshake.
func (f *siblings) traffic(key string, rx, tx int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.kernel[key]; p != nil {
		p.vpn.RxBytes, p.vpn.TxBytes = p.vpn.RxBytes+rx, p.vpn.TxBytes+tx
		p.handshake, p.endpoint = time.Now(), "198.51.100.7:1000"
	}
}

func (f *siblings) peers() map[string]lanes.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]lanes.Peer{}
	for k, p := range f.kernel {
		out[k] = p.Peer
	}
	return out
}

func (f *siblings) total(u id.User) users.Usage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.totals[u]
}

func (f *siblings) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// process is the siblings as one process of sessions sees them; when it is
// dead, its calls reach nobody.
type process struct {
	*siblings
	mu   sync.Mutex
	dead bool
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// do is one call: fn is what the sibling does, under its lock.
func (p *process) do(ctx context.Context, op string, fn func(f *siblings) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as calls over a socket do
	defer cancel()
	f := p.siblings
	f.mu.Lock()
	f.calls[op]++
	fate := answered
	if f.fate != nil {
		fate = f.fate(op)
	}
	f.mu.Unlock()
	if fate == slow {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fate != refused && fate != hung {
		p.mu.Lock()
		if p.dead {
			fate = cutOff
		} else {
			f.mu.Lock()
			err := fn(f)
			f.mu.Unlock()
			if err != nil {
				p.mu.Unlock()
				return err
			}
		}
		p.mu.Unlock()
	}
	switch fate {
	case hung, doneHung:
		<-ctx.Done()
		return fault.From(ctx.Err())
	case refused, lost, cutOff:
		return fault.New(fault.Unavailable, errorText)
	case late:
		select {
		case <-time.After(150 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

func (p *process) Account(ctx context.Context, user id.User) (out *users.Account, err error) {
	err = p.do(ctx, "account", func(f *siblings) error {
		a, ok := f.accounts[user]
		if !ok {
			return fault.New(fault.NotFound, "no such user")
		}
		c := *a
		out = &c
		return nil
	})
	return out, err
}

func (p *process) Device(ctx context.Context, user id.User, device id.Device) (out *auth.Device, err error) {
	err = p.do(ctx, "device", func(f *siblings) error {
		if f.devices[device] != user {
			return fault.New(fault.Unauthenticated, "the device was deleted").WithReason("device_deleted")
		}
		out = &auth.Device{ID: device, User: user, Name: "box-" + string(device)}
		return nil
	})
	return out, err
}

func (p *process) AddUsage(ctx context.Context, seq int64, usage []users.Usage) error {
	return p.do(ctx, "usage", func(f *siblings) error {
		if seq <= f.seq {
			return nil
		}
		f.seq = seq
		for _, u := range usage {
			t := f.totals[u.User]
			t.RxBytes, t.TxBytes, t.Sessions, t.SeenAt = t.RxBytes+u.RxBytes, t.TxBytes+u.TxBytes, t.Sessions+u.Sessions, u.SeenAt
			f.totals[u.User] = t
		}
		return nil
	})
}

func (p *process) Acquire(ctx context.Context, device id.Device, user id.User) (*ipam.Lease, error) {
	var out ipam.Lease
	err := p.do(ctx, "acquire", func(f *siblings) error {
		l, ok := f.leases[device]
		if !ok {
			f.given++ // no address is ever given twice here
			l = ipam.Lease{Device: device, User: user, VPN: place(8, f.given), Tor: place(9, f.given)}
			f.leases[device] = l
		}
		out = l
		return nil
	})
	return &out, err
}

func place(lane byte, n int) ipam.Addresses {
	return ipam.Addresses{
		IPv4: netip.AddrFrom4([4]byte{10, lane, byte(n >> 8), byte(n)}),
		IPv6: netip.AddrFrom16([16]byte{0xfd, lane, 14: byte(n >> 8), 15: byte(n)}),
	}
}

func (p *process) Release(ctx context.Context, device id.Device) error {
	return p.do(ctx, "release", func(f *siblings) error {
		for key, have := range f.kernel {
			if have.Device == device {
				return fmt.Errorf("lease of %s released while its peer %s is there", device, key)
			}
		}
		delete(f.leases, device)
		return nil
	})
}

func (p *process) Leases(ctx context.Context, user id.User) (out []ipam.Lease, err error) {
	err = p.do(ctx, "leases", func(f *siblings) error {
		for _, l := range f.leases {
			if user == "" || l.User == user {
				out = append(out, l)
			}
		}
		return nil
	})
	return out, err
}

func (p *process) Put(ctx context.Context, w lanes.Peer) (epoch string, err error) {
	err = p.do(ctx, "put", func(f *siblings) error {
		f.add(w)
		epoch = f.epoch
		return nil
	})
	return epoch, err
}

// add programs a peer, which starts with counters of zero.
func (f *siblings) add(w lanes.Peer) {
	if have := f.kernel[w.PublicKey]; have != nil {
		have.Peer = w
	} else {
		f.kernel[w.PublicKey] = &peer{Peer: w}
	}
	f.byKey[w.PublicKey] = w.Device
}

func (p *process) Remove(ctx context.Context, peers ...lanes.Removal) (*lanes.Removed, error) {
	out := &lanes.Removed{}
	err := p.do(ctx, "remove", func(f *siblings) error {
		out.Epoch = f.epoch
		for _, r := range peers {
			if have := f.kernel[r.PublicKey]; have != nil && f.byKey[r.PublicKey] == r.Device {
				out.Last = append(out.Last, have.stats())
			}
			delete(f.kernel, r.PublicKey)
			delete(f.byKey, r.PublicKey)
		}
		return nil
	})
	return out, err
}

func (p *process) Sync(ctx context.Context, peers []lanes.Peer) (*lanes.Synced, error) {
	out := &lanes.Synced{}
	err := p.do(ctx, "sync", func(f *siblings) error {
		gone := maps.Clone(f.kernel)
		clear(f.byKey)
		for _, w := range peers {
			if _, ok := gone[w.PublicKey]; !ok {
				out.Added++
			}
			delete(gone, w.PublicKey)
			f.add(w)
		}
		for key := range gone {
			out.Removed++
			delete(f.kernel, key)
		}
		out.Epoch, f.synced = f.epoch, true
		return nil
	})
	return out, err
}

func (p *peer) stats() lanes.PeerStats {
	st := lanes.PeerStats{Device: p.Device, VPN: p.vpn, Tor: p.tor, Endpoint: p.endpoint}
	if !p.handshake.IsZero() {
		t := p.handshake
		st.LastHandshake, st.HandshakeLane = &t, lanes.VPN
	}
	return st
}

func (p *process) Stats(ctx context.Context) (*lanes.StatsReply, error) {
	out := &lanes.StatsReply{}
	err := p.do(ctx, "stats", func(f *siblings) error {
		out.Epoch, out.Synced = f.epoch, f.synced
		for key, device := range f.byKey {
			if have := f.kernel[key]; have != nil {
				st := have.stats()
				st.Device = device
				out.Peers = append(out.Peers, st)
			}
		}
		return nil
	})
	return out, err
}

func (p *process) Epoch(ctx context.Context) (*lanes.EpochReply, error) {
	out := &lanes.EpochReply{}
	err := p.do(ctx, "epoch", func(f *siblings) error {
		out.Epoch, out.Synced = f.epoch, f.synced
		return nil
	})
	return out, err
}

func (p *process) Interfaces(ctx context.Context) (out []lanes.Lane, err error) {
	err = p.do(ctx, "interfaces", func(f *siblings) error {
		for _, name := range []lanes.Name{lanes.VPN, lanes.Tor} {
			out = append(out, lanes.Lane{Name: name, PublicKey: f.keys[name], State: f.laneState[name], Reason: "lanes says"})
		}
		return nil
	})
	return out, err
}

func (p *process) TorView(ctx context.Context, user id.User) (out *tor.LaneView, err error) {
	err = p.do(ctx, "view", func(f *siblings) error {
		v := f.view
		v.Exits = append([]string{string(user)}, v.Exits...)
		out = &v
		return nil
	})
	return out, err
}
