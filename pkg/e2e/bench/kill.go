//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/control"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/e2e/apiclient"
)

// killGoal is how soon a killed service is to answer again.
const killGoal = 200 * time.Millisecond

// killedTimeout is when a service that does not answer is given up.
const killedTimeout = 10 * time.Second

// target is a service and a call that cannot be answered without it.
type target struct {
	service string
	what    string
	call    func(context.Context) error
}

// killed is one death of a service.
type killed struct {
	service string
	at      time.Time     // SIGKILL
	gone    time.Time     // the process has ended
	answer  time.Duration // from at to the answer of a call that was begun after the process was gone
	refused []string      // what calls were told before one was answered
}

// killEach kills every service with SIGKILL, a few times, while clients and an
// operator go on working.
func killEach(ctx context.Context, s *suite) error {
	if err := s.running(ctx); err != nil {
		return err
	}
	targets, cleanUp, err := s.targets(ctx)
	if err != nil {
		return err
	}
	defer cleanUp()
	crowd, err := s.startBystanders(ctx)
	if err != nil {
		return err
	}
	deaths, err := s.killThem(ctx, targets, pick(s.options, 3, 1))
	calls := crowd.stop()
	if err != nil {
		return err
	}

	// The worst of each service: its median decides, so that one hiccup of the
	// machine does not.
	r := result{Name: "kill", What: "kill -9 of a service until it answers, slowest service's median", Unit: inMillis}
	var all samples
	for _, t := range targets {
		var mine samples
		var refused []string
		for _, d := range deaths {
			if d.service == t.service {
				mine.add(d.answer)
				refused = append(refused, d.refused...)
			}
		}
		all = append(all, mine...)
		r.Value = max(r.Value, mine.median())
		r.keep(t.service, mine)
		r.note("%-9s median %4.0f, max %4.0f ms, n=%d: %s", t.service, mine.median(), mine.max(), len(mine), t.what)
		if len(refused) > 0 {
			r.note("          %d calls were refused before that: %s", len(refused), refused[0])
		}
	}
	r.note("of all: median %.0f, max %.0f ms", all.median(), all.max())
	r.goal("200 ms", r.Value <= millis(killGoal))
	s.report.add(r)
	s.report.add(judge(calls, deaths))
	return nil
}

// killThem kills one service after the other, as often as said, and lets all of
// them get ready in between.
func (s *suite) killThem(ctx context.Context, targets []target, times int) ([]killed, error) {
	var out []killed
	for range times {
		for _, t := range targets {
			if err := s.ready(ctx); err != nil {
				return out, err
			}
			if err := s.settle(ctx); err != nil {
				return out, err
			}
			d, err := s.killOne(ctx, t)
			if err != nil {
				return out, fmt.Errorf("kill %s: %w", t.service, err)
			}
			out = append(out, d)
		}
	}
	return out, s.ready(ctx)
}

func (s *suite) killOne(ctx context.Context, t target) (killed, error) {
	st, err := supervisor.Get.Call(ctx, s.super, &supervisor.Ref{Service: t.service})
	if err != nil {
		return killed{}, err
	}
	fd, err := unix.PidfdOpen(st.PID, 0)
	if err != nil {
		return killed{}, err
	}
	defer unix.Close(fd)
	d := killed{service: t.service, at: time.Now()}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return d, err
	}
	// Only a call that begins after the process has gone is surely answered by
	// the next one.
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 1000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return d, fmt.Errorf("process %d does not end: %w", st.PID, err)
		}
		break
	}
	d.gone = time.Now()
	for {
		err := t.call(ctx)
		if err == nil {
			d.answer = time.Since(d.at)
			return d, nil
		}
		d.refused = append(d.refused, firstLine(err))
		if time.Since(d.at) > killedTimeout {
			return d, fmt.Errorf("%s: %w", t.what, err)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return d, err
		}
	}
}

// targets lists the services with a call each; callees before callers.
func (s *suite) targets(ctx context.Context) (_ []target, cleanUp func(), err error) {
	dev, err := s.visitor(ctx, "prober")
	if err != nil {
		return nil, nil, err
	}
	connect := func(ctx context.Context) error {
		if err := dev.NewKey(); err != nil {
			return err
		}
		_, err := dev.Initiate(ctx)
		return err
	}
	if err := connect(ctx); err != nil {
		dev.Conn.CloseIdle()
		return nil, nil, err
	}
	beat := func(ctx context.Context) error {
		_, err := dev.Beat(ctx)
		return err
	}
	return []target{
		{"keys", "GET /health on a new TLS connection, which keys signs", func(ctx context.Context) error {
			dev.Conn.CloseIdle()
			_, err := client.GetHealth.Call(ctx, dev.Conn, nil)
			return err
		}},
		{"lanes", "/vpn/initiate with a new key", connect},
		{"ipam", "/vpn/initiate with a new key", connect},
		{"sessions", "heartbeat", beat},
		{"users", "user list", func(ctx context.Context) error {
			_, err := users.ListUsers.Call(ctx, s.ops, &users.ListRequest{Limit: 10})
			return err
		}},
		{"auth", "/auth/reauth", dev.Reauth},
		{"gateway", "heartbeat on a new TLS connection", func(ctx context.Context) error {
			dev.Conn.CloseIdle()
			return beat(ctx)
		}},
		{"control", "status", func(ctx context.Context) error {
			_, err := control.GetStatus.Call(ctx, s.ops, nil)
			return err
		}},
	}, dev.Conn.CloseIdle, nil
}

// visitor signs a device of a new user in, with the client that everybody else
// has: it tries again where the operation allows it, for five seconds.
func (s *suite) visitor(ctx context.Context, name string) (*apiclient.Client, error) {
	user, err := s.newUser(ctx)
	if err != nil {
		return nil, err
	}
	c := apiclient.Dial(s.apiAddress().String(), s.fromClient(s.apiAddress()), 5*time.Second)
	if err := c.Login(ctx, user, password, name, ""); err != nil {
		c.Conn.CloseIdle()
		return nil, fmt.Errorf("sign in: %w", err)
	}
	return c, nil
}

// judge tells what the killings did to the calls of the bystanders.
func judge(calls []observed, deaths []killed) result {
	r := result{Name: "kill-calls", What: "calls begun after a kill that failed", Unit: plain}
	failedBy := map[string]int{}
	var messages []string
	inFlight, after := 0, 0
	slowest := map[string]samples{}
	for _, c := range calls {
		t := slowest[c.stream]
		t.add(c.end.Sub(c.begin))
		slowest[c.stream] = t
		if c.err == nil {
			continue
		}
		// A call that was on its way when a process died may be cut off: what
		// may not be repeated cannot be.
		cut := slices.ContainsFunc(deaths, func(d killed) bool { return c.begin.Before(d.gone) && c.end.After(d.at) })
		if cut {
			inFlight++
			continue
		}
		after++
		failedBy[c.stream]++
		messages = append(messages, c.stream+": "+firstLine(c.err))
	}
	r.Value = float64(after)
	r.goal("0", after == 0)
	r.note("%d calls during %d kills; %d more were on their way at a kill and failed", len(calls), len(deaths), inFlight)
	for _, stream := range sortedKeys(slowest) {
		t := slowest[stream]
		r.keep(stream, t)
		r.note("%-10s %d calls, %d failed, p50 %.1f, slowest %.0f ms", stream, len(t), failedBy[stream], t.median(), t.max())
	}
	slices.Sort(messages)
	messages = slices.Compact(messages)
	r.Notes = append(r.Notes, messages[:min(len(messages), 5)]...)
	return r
}
