//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/tor"
)

// torCrowd is how many devices have connections open in lane tor.
const torCrowd = 50

// cutWithin is how soon a device should hear of the end of its connection.
const cutWithin = 2 * time.Second

// torNewID gives one device of many a new identity again and again. The others
// must keep their circuits, and their connections must still echo.
func torNewID(ctx context.Context, s *suite) error {
	devices, err := s.torDevices(ctx, torCrowd)
	if err != nil {
		return err
	}
	open := make([]*echoes, len(devices))
	defer func() {
		for _, e := range open {
			if e != nil {
				_ = e.Close()
			}
		}
	}()
	progress(os.Stderr, "%d devices open connections", len(devices))
	err = spreadOut(ctx, 8, len(devices), func(_, i int) (err error) {
		open[i], err = devices[i].openEcho(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("%d devices in lane tor: %w", len(devices), err)
	}
	var calls, again samples
	closed, others, broken, moved, hung := 0, 0, 0, 0, 0
	for round := range pick(s.options, 25, 6) {
		i := round * 7 % len(devices)
		before, err := s.circuitsOf(ctx)
		if err != nil {
			return err
		}
		req := &tor.NewIDRequest{}
		req.Body.Device = devices[i].user + "/" + devices[i].name
		var reply *tor.NewIDReply
		err = calls.timed(func() (err error) {
			reply, err = tor.NewID.Call(ctx, s.ops, req)
			return err
		})
		if err != nil {
			return err
		}
		closed += reply.Circuits
		after, err := s.circuitsOf(ctx)
		if err != nil {
			return err
		}
		for k, d := range devices {
			if k != i {
				others++
				if len(before[d.ipv4]) == 0 || before[d.ipv4] != after[d.ipv4] {
					moved++
				}
			}
		}
		switch err := open[i].turn(cutWithin); {
		case err == nil:
			return errors.New("the connection of the device with a new identity is still there")
		case errors.Is(err, os.ErrDeadlineExceeded):
			hung++
		}
		lost, err := s.stillEcho(ctx, open, i)
		if err != nil {
			return err
		}
		broken += lost
		_ = open[i].Close()
		if err := again.timed(func() (err error) { open[i], err = devices[i].openEcho(ctx); return err }); err != nil {
			return err
		}
		now, err := s.circuitsOf(ctx)
		if err != nil {
			return err
		}
		if now[devices[i].ipv4] == before[devices[i].ipv4] {
			return errors.New("after a new identity the device uses the same circuit")
		}
	}
	r := result{Name: "tor-newid", What: fmt.Sprintf("newid for one of %d devices, p50", torCrowd), Unit: inMillis, Value: calls.median()}
	r.goal("50 ms, others keep all", r.Value <= 50 && broken+moved == 0)
	r.keep("newid", calls)
	r.keep("again", again)
	r.note("%d devices, each with a tunnel of its own on one client machine and an open connection through Tor: %s; %d circuits closed", torCrowd, calls.spread(), closed)
	r.note("of %d looks at the other devices: %d found the circuit changed, %d the connection broken", others, moved, broken)
	r.note("the device's own connection: %d times it was told of the end, %d times it only heard nothing for %s", len(calls)-hung, hung, cutWithin)
	r.note("the device's next connection, on a new circuit: %s", again.spread())
	s.report.add(r)
	return nil
}

// stillEcho counts the connections that are broken, but for one that should be.
func (s *suite) stillEcho(ctx context.Context, open []*echoes, but int) (int, error) {
	var lost atomic.Int64
	err := spreadOut(ctx, 8, len(open), func(_, k int) error {
		if k != but && open[k].turn(pageTimeout) != nil {
			lost.Add(1)
		}
		return nil
	})
	return int(lost.Load()), err
}

// circuitsOf tells on which circuit each device's connection is.
func (s *suite) circuitsOf(ctx context.Context) (map[netip.Addr]string, error) {
	all, err := tor.ListStreams.Call(ctx, s.ops, nil)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]string{}
	for _, st := range all.Items {
		if st.State == "SUCCEEDED" {
			out[st.Owner.Address] = st.Circuit
		}
	}
	return out, nil
}
