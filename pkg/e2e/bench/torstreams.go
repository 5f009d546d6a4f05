//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/proxy"

	"vpnd/pkg/api/tor"
	"vpnd/pkg/lab"
	"vpnd/pkg/torctl"
)

// How a stream gets its circuit.
const (
	noted   = "chosen by vpnd" // an exit choice, whose circuit is there
	given   = "given to tor"   // no choice: vpnd gives the stream back
	alone   = "tor alone"      // tor attaches by itself
	nowhere = ""               // not counted
)

// watcher measures how long tor's streams wait for a circuit.
type watcher struct {
	ctl *torctl.Client

	mu    sync.Mutex
	mode  string
	waits map[string]*samples
	ended chan struct{}
}

// watch follows the streams of a device.
func (s *suite) watch(ctx context.Context, device netip.Addr) (*watcher, error) {
	w := &watcher{waits: map[string]*samples{noted: {}, given: {}, alone: {}}, ended: make(chan struct{})}
	err := s.Machine(lab.Server).Do(func() (err error) {
		w.ctl, err = torctl.Dial(ctx, torControl)
		return err
	})
	if err != nil {
		return nil, err
	}
	feed, err := w.ctl.Events(ctx, "STREAM")
	if err != nil {
		return nil, errors.Join(err, w.ctl.Close())
	}
	go func() {
		defer close(w.ended)
		type begun struct {
			mode string
			at   time.Time
		}
		open := map[string]begun{}
		for e := range feed {
			now := time.Now()
			st, _ := e.Stream()
			switch {
			case st.Status == "NEW" && st.Source.Addr() == device:
				w.mu.Lock()
				open[st.ID] = begun{w.mode, now}
				w.mu.Unlock()
			case st.Status == "SENTCONNECT":
				b, mine := open[st.ID]
				delete(open, st.ID)
				if mine && b.mode != nowhere {
					w.mu.Lock()
					w.waits[b.mode].add(now.Sub(b.at))
					w.mu.Unlock()
				}
			}
		}
	}()
	return w, nil
}

func (w *watcher) counts(mode string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode = mode
}

// waited gives what was measured in a mode.
func (w *watcher) waited(mode string) samples {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(*w.waits[mode])
}

func (w *watcher) close() {
	_ = w.ctl.Close()
	<-w.ended
}

// torAttach is what it costs a new connection that vpnd puts it on a circuit,
// beside the same tor doing so by itself, in turns.
func torAttach(ctx context.Context, s *suite) error {
	devices, err := s.torDevices(ctx, 1)
	if err != nil {
		return err
	}
	d := devices[0]
	w, err := s.watch(ctx, d.ipv4)
	if err != nil {
		return err
	}
	defer w.close()
	leave := func(ctx context.Context, value string) error {
		return w.ctl.SetConf(ctx, [2]string{"__LeaveStreamsUnattached", value})
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		_ = leave(end, "1") // the rows that follow would only be a little off
		_, _ = tor.ClearExit.Call(end, s.ops, &tor.UserRef{User: d.user})
	}()
	country := s.onion.network.Exits()[0].Country
	choose := func() error {
		req := &tor.ExitRequest{User: d.user}
		req.Body.Exits, req.Body.Strict = []string{country}, true
		_, err := tor.SetExit.Call(ctx, s.ops, req)
		return err
	}
	forget := func() error {
		_, err := tor.ClearExit.Call(ctx, s.ops, &tor.UserRef{User: d.user})
		return err
	}
	pages := map[string]*samples{noted: {}, given: {}, alone: {}}
	modes := []struct {
		name  string
		begin func() error
	}{
		{noted, func() error { return errors.Join(leave(ctx, "1"), choose()) }},
		{given, func() error { return errors.Join(forget(), leave(ctx, "1")) }},
		{alone, func() error { return errors.Join(forget(), leave(ctx, "0")) }},
	}
	for range pick(s.options, 16, 4) {
		for _, m := range modes {
			if err := m.begin(); err != nil {
				return err
			}
			w.counts(nowhere)
			for i := range 12 {
				if i == 2 { // now the circuit is there
					w.counts(m.name)
				}
				began := time.Now()
				if err := s.page(ctx, d); err != nil {
					return fmt.Errorf("a page, streams %s: %w", m.name, err)
				}
				if i >= 2 {
					pages[m.name].add(time.Since(began))
				}
			}
			w.counts(nowhere)
		}
		slices.Reverse(modes)
	}
	r := result{
		Name: "tor-attach", What: "longer wait of a new stream for its circuit, exit choice, p50", Unit: inMillis,
		Value:   w.waited(noted).median() - w.waited(alone).median(),
		FloorIs: "already taken off: the same tor without __LeaveStreamsUnattached, which attaches streams itself; in turns",
	}
	r.goal("1 ms", r.Value < 1)
	for _, m := range []string{noted, given, alone} {
		r.keep("wait, "+m, w.waited(m))
		r.keep("page, "+m, *pages[m])
		r.note("%-14s from tor's STREAM NEW to SENTCONNECT: %s; a whole page %s", m+":", w.waited(m).spread(), pages[m].spread())
	}
	r.note("difference of the pages' p50 from tor alone: %+.2f ms with an exit choice, %+.2f ms without",
		pages[noted].median()-pages[alone].median(), pages[given].median()-pages[alone].median())
	s.report.add(r)
	return nil
}

// torStream is one download through lane tor beside the same by the SOCKS port
// of the same tor, from the server itself: no tunnel, no redirection.
func torStream(ctx context.Context, s *suite) error {
	devices, err := s.torDevices(ctx, 1)
	if err != nil {
		return err
	}
	socks, err := proxy.SOCKS5("unix", torSOCKS, nil, onServer{s})
	if err != nil {
		return err
	}
	var lane, floor samples
	type end struct {
		dial func(context.Context) (net.Conn, error)
		out  *samples
	}
	ends := []end{
		{func(ctx context.Context) (net.Conn, error) { return devices[0].dial(ctx, "tcp", targetPage) }, &lane},
		{func(ctx context.Context) (net.Conn, error) {
			return socks.(proxy.ContextDialer).DialContext(ctx, "tcp", targetPage.String())
		}, &floor},
	}
	const size = 20_000_000
	for range pick(s.options, 8, 3) {
		for _, e := range ends {
			rate, err := download(ctx, e.dial, size)
			if err != nil {
				return err
			}
			*e.out = append(*e.out, rate)
		}
		slices.Reverse(ends)
	}
	r := result{
		Name: "tor-stream", What: "throughput of one stream, lane tor", Unit: inMbit,
		Value: lane.median(), Floor: floor.median(),
		FloorIs: "the same tor by its SOCKS socket, on the server: no tunnel, no redirection",
	}
	r.goal("90 %", r.ratio() >= 0.9)
	r.keep("lane_tor", lane)
	r.keep("socks", floor)
	r.note("downloads of 20 MB, in turns; lane tor %s; SOCKS %s", lane.list(inMbit), floor.list(inMbit))
	r.note("both ends of the tunnel, tor, three relays and the target share the cores of this machine")
	s.report.add(r)
	return nil
}

// onServer dials from the server, for package proxy.
type onServer struct{ s *suite }

func (o onServer) Dial(network, address string) (net.Conn, error) {
	return o.DialContext(context.Background(), network, address)
}

func (o onServer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return o.s.Machine(lab.Server).DialContext(ctx, network, address)
}

// download fetches so many bytes from the target and gives Mbit/s, from the
// first byte of the answer to the last.
func download(ctx context.Context, dial func(context.Context) (net.Conn, error), size int64) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET /bytes?n=%d HTTP/1.0\r\nHost: %s\r\n\r\n", size, lab.TargetV4); err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(conn, 256<<10)
	if _, err := r.Peek(1); err != nil {
		return 0, fmt.Errorf("read a download: %w", err)
	}
	began := time.Now()
	n, err := io.Copy(io.Discard, r)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, fmt.Errorf("read a download: %w", err)
	}
	return float64(n) * 8 / time.Since(began).Seconds() / 1e6, nil
}
