//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"vpnd/pkg/lab"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
	"vpnd/pkg/wgdev"
)

// floors are the things without which no connect can be: a peer in two
// WireGuard devices, a durable record, a TLS round trip. They run beside vpnd,
// on the same disk and the same network, and share nothing with it but code.
type floors struct {
	devices [2]*wgdev.Device
	db      *store.DB
	tls     netip.AddrPort // of the server that does nothing
	end     func() error   // ends that server
	serial  atomic.Uint32  // of the peers

	mu    sync.Mutex
	added []wgdev.Key
}

// emptyCall is what the server that does nothing is asked.
var emptyCall = rpc.Info{ID: "floor.empty", Method: "GET", Path: "/health"}

const floorPort = 4606

// floor starts what the floors need, once.
func (s *suite) floor(ctx context.Context) (_ *floors, err error) {
	if s.floors != nil {
		return s.floors, nil
	}
	f := &floors{tls: netip.AddrPortFrom(s.Machine(lab.Server).IPv4(), floorPort)}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	run, err := s.sub("floor-run")
	if err != nil {
		return nil, err
	}
	for i := range f.devices {
		if f.devices[i], err = s.openDevice(ctx, s.Machine(lab.Client(1)), fmt.Sprintf("floor%d", i), run, wgdev.Config{}); err != nil {
			return nil, err
		}
	}
	f.db, err = store.Open(ctx, store.Options{Path: filepath.Join(s.tmp, "floor.db"), Migrations: []store.Migration{
		{Name: "floor", SQL: `CREATE TABLE floor (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT`},
	}})
	if err != nil {
		return nil, err
	}
	if f.end, err = s.startEmptyServer(); err != nil {
		return nil, err
	}
	s.floors = f
	return f, nil
}

// startEmptyServer starts, on the server machine, a process that answers every
// request over TLS with the same few bytes.
func (s *suite) startEmptyServer() (end func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := s.Machine(lab.Server).Command(self, helperArg, "tls", fmt.Sprintf("[::]:%d", floorPort))
	// It ends when its input does, so also when this process is killed.
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the empty TLS server: %w", err)
	}
	end = func() error { return errors.Join(hold.Close(), cmd.Wait()) }
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != helperReady {
		return nil, errors.Join(fmt.Errorf("the empty TLS server did not start: %q", line), err, end())
	}
	return end, nil
}

// openDevice opens a WireGuard device on a machine, in a process of its own. A
// zero key gets a fresh one.
func (s *suite) openDevice(ctx context.Context, m *lab.Machine, name, run string, cfg wgdev.Config) (dev *wgdev.Device, err error) {
	if cfg.PrivateKey.IsZero() {
		if cfg.PrivateKey, err = wgdev.GeneratePrivateKey(); err != nil {
			return nil, err
		}
	}
	err = m.Do(func() (err error) {
		dev, err = wgdev.Open(ctx, wgdev.OpenConfig{
			Interface: name, MTU: tunnelMTU, RunDir: run,
			Daemon: []string{filepath.Join(s.bin, "vpnd"), "wireguard", name, fmt.Sprint(tunnelMTU), run},
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a bare WireGuard device: %w", err)
	}
	if err := dev.Configure(ctx, cfg); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// close ends what floor started; the lab takes the WireGuard processes along.
func (f *floors) close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, d := range f.devices {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	if f.db != nil {
		errs = append(errs, f.db.Close())
	}
	if f.end != nil {
		errs = append(errs, f.end())
	}
	return errors.Join(errs...)
}

// steps are the parts of the floor of one connect.
type steps struct{ peers, commit, tls, all samples }

func (s steps) String() string {
	return fmt.Sprintf("p50 of its parts: both peers %.2f, commit %.2f, TLS round trip %.2f ms; %s",
		s.peers.median(), s.commit.median(), s.tls.median(), s.all.spread())
}

// sequence is one whole floor of a connect: a new peer in both devices, one
// after the other, one commit, one round trip on c.
func (f *floors) sequence(ctx context.Context, c *wire, key wgdev.Key, out *steps) error {
	n := f.serial.Add(1)
	psk, err := wgdev.GeneratePresharedKey()
	if err != nil {
		return err
	}
	peer := wgdev.Peer{PublicKey: key, PresharedKey: psk, AllowedIPs: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}), 128),
	}}
	f.mu.Lock()
	f.added = append(f.added, key)
	f.mu.Unlock()
	return out.all.timed(func() error {
		return errors.Join(
			out.peers.timed(func() error {
				return errors.Join(f.devices[0].Upsert(ctx, peer), f.devices[1].Upsert(ctx, peer))
			}),
			out.commit.timed(func() error { return f.commit(ctx, n) }),
			out.tls.timed(func() error { _, err := c.send(emptyCall, "", nil); return err }),
		)
	})
}

// commit writes a record as large as a session's.
func (f *floors) commit(ctx context.Context, n uint32) error {
	return f.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO floor (id, body) VALUES (?, ?)`, int64(n), strings.Repeat("x", 500))
		return err
	})
}

// forget removes the peers that were added.
func (f *floors) forget(ctx context.Context) error {
	f.mu.Lock()
	keys := f.added
	f.added = nil
	f.mu.Unlock()
	return errors.Join(f.devices[0].Remove(ctx, keys...), f.devices[1].Remove(ctx, keys...))
}
