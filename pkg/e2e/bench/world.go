//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/rpc"
)

const (
	apiPort = 4605
	runDir  = "/run/vpnd"
	// endTimeout bounds cleaning up, which must also happen after an interrupt.
	endTimeout = 20 * time.Second
	// readyTimeout bounds a start.
	readyTimeout = 20 * time.Second
)

// world is a lab with one client machine and, on its server, vpnd.
type world struct {
	*site.Site
	daemon *site.Daemon // nil while vpnd does not run
	ops    *rpc.Conn    // control.sock, as root
	super  *rpc.Conn    // supervisor.sock, as root

	begun bool // vpnd was started before

	// conns ends with the world: whatever is connected into it is closed then.
	conns context.Context
	drop  context.CancelFunc
}

// cheapPasswords makes Argon2id cost nothing, and keeps devices that say nothing
// from going offline while others are measured.
func cheapPasswords(base string) string {
	return base + `
[auth.argon2]
memory_kib = 8
time = 1
threads = 1

[sessions]
heartbeat_ttl = "1h"
`
}

func newWorld(ctx context.Context, bin, disk string, config func(string) string) (*world, error) {
	l, err := lab.New(ctx, lab.Options{Clients: 1, Dir: disk})
	if err != nil {
		return nil, err
	}
	w := &world{}
	w.conns, w.drop = context.WithCancel(context.WithoutCancel(ctx))
	if w.Site, err = site.New(l, bin); err == nil {
		err = w.WriteConfig(config(w.Config()))
	}
	if err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		w.drop()
		return nil, errors.Join(err, l.Close(end))
	}
	w.ops, w.super = w.socket("control"), w.socket("supervisor")
	return w, nil
}

// socket prepares calls to one of the server's Unix sockets.
func (w *world) socket(name string) *rpc.Conn {
	return rpc.DialUnix(name, "", rpc.Options{Dial: func(ctx context.Context) (net.Conn, error) {
		return w.Machine(lab.Server).DialContext(ctx, "unix", filepath.Join(runDir, name+".sock"))
	}})
}

// close ends vpnd and removes the lab.
func (w *world) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	w.drop()
	w.ops.CloseIdle()
	w.super.CloseIdle()
	return errors.Join(w.stop(ctx), w.Lab.Close(ctx))
}

// start starts vpnd and tells how long it took until every service was ready.
func (w *world) start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	d, err := w.Site.Start()
	if err != nil {
		return 0, err
	}
	w.daemon, w.begun = d, true
	err = w.ready(ctx)
	return time.Since(began), err
}

// running starts vpnd where it does not run.
func (w *world) running(ctx context.Context) error {
	if w.daemon != nil {
		return nil
	}
	_, err := w.start(ctx)
	return err
}

// stop ends vpnd the polite way. The interfaces stay.
func (w *world) stop(ctx context.Context) error {
	if w.daemon == nil {
		return nil
	}
	d := w.daemon
	w.daemon = nil
	return d.Stop(ctx)
}

// ready returns when the supervisor calls every service ready.
func (w *world) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		list, err := w.services(ctx)
		if err == nil {
			waiting := ""
			for _, s := range list {
				if s.Enabled && s.State != "ready" {
					waiting = s.Name + " is " + s.State
				}
			}
			if waiting == "" && len(list) > 0 {
				return nil
			}
			err = errors.New(waiting)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("vpnd is not ready: %w\n%s", err, w.log())
		case <-w.daemon.Ended():
			return fmt.Errorf("vpnd has ended\n%s", w.log())
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// serviceState is what the supervisor tells of a service.
type serviceState = supervisor.Service

func (w *world) services(ctx context.Context) ([]serviceState, error) {
	list, err := supervisor.List.Call(ctx, w.super, nil)
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// log is the end of what vpnd printed.
func (w *world) log() string {
	text, err := w.Machine(lab.Server).ReadFile(site.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// apiAddress is where clients reach the API.
func (w *world) apiAddress() netip.AddrPort {
	return netip.AddrPortFrom(w.Machine(lab.Server).IPv4(), apiPort)
}

// fromClient dials addr from the client machine.
func (w *world) fromClient(addr netip.AddrPort) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return w.Machine(lab.Client(1)).DialContext(ctx, "tcp", addr.String())
	}
}

// sub makes a folder of this run that every machine sees.
func (s *suite) sub(name string) (string, error) {
	dir := filepath.Join(s.tmp, name)
	return dir, os.MkdirAll(dir, 0o700)
}
