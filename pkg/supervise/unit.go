//go:build linux

package supervise

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// unit is one service. Its goroutine (run) alone starts and stops processes
// and handles one request at a time, so no restart races another.
type unit struct {
	name     string
	sup      *Supervisor
	requests chan request
	ended    chan struct{} // closed when run has returned

	// For the unit's goroutine alone, and before it starts for its maker.
	sockets  sockets
	keeper   *keeper
	child    *child    // nil without a process
	waiters  []request // answered when the service answers, or dies
	deferred []request // restarts asked for while waiters wait
	streak   streak
	retry    *time.Timer // nil unless a start is due later
	retryAt  time.Time
	starts   int

	// Written by the unit's goroutine under mu; it alone reads without.
	mu     sync.Mutex
	spec   Spec // with defaults
	halted bool // stopped by request; a new spec does not start it
	status Status
	dead   *output // standard error of the last process that ended
}

type action int

const (
	doStart action = iota
	doStop
	doRestart
	doReplace
	doEnd // stop, forget, return from run
)

type request struct {
	act  action
	spec Spec       // of doReplace
	done chan error // buffered: whoever asked may have gone
}

func (s *Supervisor) newUnit(name string, spec Spec) *unit {
	u := &unit{
		name: name, sup: s, spec: spec.withDefaults(),
		requests: make(chan request), ended: make(chan struct{}),
	}
	u.status = Status{Name: name, Enabled: spec.IsEnabled(), State: Stopped, Since: time.Now()}
	if !spec.IsEnabled() {
		u.status.State = Disabled
	}
	return u
}

// run is the unit's goroutine; it ends with doEnd.
func (u *unit) run(start bool) {
	defer close(u.ended)
	if start {
		u.spawn("")
	}
	for {
		if len(u.waiters) == 0 && len(u.deferred) > 0 {
			batch := u.deferred
			u.deferred = nil
			u.restart(batch)
			continue
		}
		var exited <-chan struct{}
		var pongs <-chan pong
		var due <-chan time.Time
		if u.child != nil {
			exited, pongs = u.child.exited, u.child.pongs
		}
		if u.retry != nil {
			due = u.retry.C
		}
		select {
		case r := <-u.requests:
			if !u.handle(r) {
				return
			}
		case <-exited:
			ready := u.child.healthy(u.child.exit.Time)
			u.failed(u.bury(), ready, true)
		case p := <-pongs:
			u.heard(p)
		case <-due:
			u.spawn(u.status.Reason)
		}
	}
}

func (u *unit) handle(r request) bool {
	switch r.act {
	case doStart, doRestart:
		u.begin(r)
	case doStop:
		if !u.spec.IsEnabled() {
			r.done <- nil
			break
		}
		u.halt(true)
		u.dismiss("was stopped")
		r.done <- u.down(Stopped, "stopped by request")
	case doReplace:
		u.replace(r)
	case doEnd:
		u.dismiss("was stopped")
		err := u.down(Stopped, "")
		u.closeKeeper()
		r.done <- err
		return false
	}
	return true
}

// begin is a start or a restart.
func (u *unit) begin(r request) {
	switch {
	case !u.spec.IsEnabled():
		r.done <- fault.New(fault.Conflict, "%s is disabled", u.name).WithReason("disabled").
			WithHint(`set "enabled": true for it in services.json, then reload`)
	case r.act == doRestart && len(u.waiters) > 0:
		// Somebody waits for the process that is starting; the restart
		// follows, one for all that ask meanwhile.
		u.deferred = append(u.deferred, r)
	case r.act == doRestart:
		u.restart([]request{r})
	case u.child != nil && u.status.State != Starting:
		r.done <- nil
	default:
		u.waiters = append(u.waiters, r)
		if u.child == nil {
			u.halt(false)
			u.streak = 0
			u.spawn("started by request")
		}
	}
}

func (u *unit) restart(batch []request) {
	u.waiters = append(u.waiters, batch...)
	if err := u.endChild("restart requested"); err != nil {
		u.settle(err)
		return
	}
	u.halt(false)
	u.streak = 0
	u.spawn("restarted by request")
}

func (u *unit) replace(r request) {
	u.dismiss("has a new configuration")
	if !r.spec.IsEnabled() {
		u.halt(false)
		err := u.down(Disabled, "")
		u.closeKeeper()
		u.adopt(r.spec)
		u.become(Disabled, "")
		r.done <- err
		return
	}
	if u.halted {
		u.adopt(r.spec)
		u.become(Stopped, "stopped by request")
		r.done <- nil
		return
	}
	if err := u.endChild("its configuration changed"); err != nil {
		r.done <- err
		return
	}
	u.adopt(r.spec)
	u.streak = 0
	u.waiters = append(u.waiters, r)
	u.spawn("its configuration changed")
}

func (u *unit) adopt(spec Spec) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.spec = spec
}

func (u *unit) halt(halted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.halted = halted
}

// down stops the process and gives up the sockets, so that callers are refused
// at once instead of waiting for a service that does not come.
func (u *unit) down(state State, reason string) error {
	err := u.endChild(reason)
	u.clearRetry()
	u.sockets.close()
	if err == nil {
		u.become(state, reason)
	}
	return err
}

// spawn starts a process; the unit has none.
func (u *unit) spawn(reason string) {
	u.clearRetry()
	c, err := u.launch()
	if err != nil {
		u.failed(err.Error(), 0, false)
		return
	}
	u.child = c
	u.starts++
	u.note(func(s *Status) {
		s.Restarts = u.starts - 1
		s.MissedPongs, s.PongLatency = 0, 0
	})
	if u.spec.Heartbeat.Kind == HeartbeatNone {
		c.healthySince = c.started
		u.become(Running, reason)
		u.settle(nil)
		return
	}
	u.become(Starting, reason)
	path, h := u.spec.SocketPath, u.spec.Heartbeat
	u.sup.goroutines.Go(func() { c.monitor(path, h, u.sup.timing.FirstPing) })
}

// heard takes the result of a ping.
func (u *unit) heard(p pong) {
	c, h := u.child, u.spec.Heartbeat
	now := time.Now()
	if p.err != nil {
		u.missed(c, h, now, p.err)
		return
	}
	c.answered, c.missed = true, 0
	u.note(func(s *Status) { s.PongLatency, s.MissedPongs = Duration(p.latency), 0 })
	if p.ready {
		if c.healthySince.IsZero() {
			c.healthySince = now
		}
		u.become(Ready, p.reason)
	} else {
		c.unwell(now)
		u.become(Unready, p.reason)
	}
	u.settle(nil)
}

func (c *child) unwell(now time.Time) {
	c.healthyFor, c.healthySince = c.healthy(now), time.Time{}
}

func (u *unit) missed(c *child, h Heartbeat, now time.Time, err error) {
	var why string
	if c.answered {
		c.missed++
		c.unwell(now)
		u.note(func(s *Status) { s.MissedPongs = c.missed })
		u.become(Unhealthy, err.Error())
		if c.missed < h.Misses {
			return
		}
		why = fmt.Sprintf("missed %d pongs in a row: %v", c.missed, err)
	} else {
		if now.Sub(c.started) < time.Duration(h.Grace) {
			return
		}
		why = fmt.Sprintf("did not answer within %v of its start: %v", h.Grace, err)
	}
	if stuck := u.endChild(why); stuck != nil {
		u.settle(stuck)
		return
	}
	u.failed(why, c.healthyFor, true)
}

// failed decides what follows a death or a start that came to nothing.
func (u *unit) failed(why string, ready time.Duration, couldStart bool) {
	pause, given := u.streak.died(u.sup.timing, ready, couldStart)
	if len(u.waiters) > 0 {
		u.settle(fault.New(fault.Unavailable, "%s did not start: %s", u.name, why).WithReason("start_failed").
			WithHint("it is tried again by itself; its status says when"))
	}
	if pause == 0 {
		u.sup.log.Warn("service.restarted", "name", u.name, "reason", why)
		u.spawn(why)
		return
	}
	u.retry, u.retryAt = time.NewTimer(pause), time.Now().Add(pause)
	if given {
		u.become(Failed, why)
	} else {
		u.become(Backoff, why)
	}
}

func (u *unit) clearRetry() {
	if u.retry != nil {
		u.retry.Stop()
		u.retry, u.retryAt = nil, time.Time{}
	}
}

// endChild stops the process, if there is one: SIGTERM, and SIGKILL after the
// service's timeout or when the supervisor's own time is up. Only the process
// itself is signalled: what it detached lives on.
func (u *unit) endChild(why string) error {
	c := u.child
	if c == nil {
		return nil
	}
	c.stopWatch()
	u.become(Stopping, why)
	// An error means that it has just ended by itself.
	_ = c.proc.Signal(unix.SIGTERM)
	_ = c.proc.Signal(unix.SIGCONT) // a stopped process cannot take SIGTERM
	t := time.NewTimer(time.Duration(u.spec.Stop.Timeout))
	defer t.Stop()
	select {
	case <-c.exited:
	case <-t.C:
		u.sup.log.Warn("service.killed", "name", u.name, "pid", c.proc.Pid)
	case <-u.sup.killAll:
	}
	_ = c.proc.Kill()
	select {
	case <-c.exited:
	case <-u.sup.giveUp:
		u.child = nil
		return fault.New(fault.Timeout, "%s: process %d does not end, not even by SIGKILL", u.name, c.proc.Pid)
	}
	u.bury()
	return nil
}

// bury records the end of the process and tells it in words.
func (u *unit) bury() string {
	c := u.child
	c.stopWatch()
	c.unwell(c.exit.Time)
	c.stderr.drained()
	u.child = nil
	exit := c.exit
	u.mu.Lock()
	u.dead = c.stderr
	u.status.LastExit = &exit
	u.mu.Unlock()
	words := exit.Words
	if lines := c.stderr.lines(); len(lines) > 0 {
		words += ": " + plain(lines[len(lines)-1], maxReason)
	}
	return words
}

// settle answers everybody who waits for the start.
func (u *unit) settle(err error) {
	for _, r := range u.waiters {
		r.done <- err
	}
	u.waiters = nil
}

// dismiss tells everybody who waits that something else came first.
func (u *unit) dismiss(what string) {
	u.waiters = append(u.waiters, u.deferred...)
	u.deferred = nil
	u.settle(fault.New(fault.Conflict, "%s %s meanwhile", u.name, what).WithReason("superseded"))
}

func (u *unit) note(change func(*Status)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(&u.status)
}

// become publishes the state; child and retryAt are already those of it.
func (u *unit) become(state State, reason string) {
	now := time.Now()
	u.mu.Lock()
	s := &u.status
	was, wasReason := s.State, s.Reason
	if state != was {
		s.Since = now
	}
	s.State, s.Reason, s.Enabled = state, reason, u.spec.IsEnabled()
	s.PID, s.StartedAt, s.NextRetry = 0, nil, nil
	if u.child != nil {
		started := u.child.started
		s.PID, s.StartedAt = u.child.proc.Pid, &started
	}
	if u.retry != nil {
		at := u.retryAt
		s.NextRetry = &at
	}
	s.Listening = u.sockets.addresses()
	pid := s.PID
	u.mu.Unlock()
	if state == was && reason == wasReason {
		return
	}
	u.sup.events.publish(Event{Time: now, Service: u.name, State: state, Was: was, Reason: reason, PID: pid})
	if state == was {
		return
	}
	level := slog.LevelInfo
	if state == Unhealthy || state == Backoff || state == Failed {
		level = slog.LevelWarn
	}
	u.sup.log.Log(u.sup.logContext, level, "service."+string(state), "name", u.name, "was", was, "reason", reason, "pid", pid)
}

// snapshot is the status as of now, independent of the unit.
func (u *unit) snapshot() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.status
	if u.dead != nil {
		s.StderrTail = u.dead.lines()
	}
	return s
}
