package agent

import (
	"context"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/pkg/fault"
)

// request is a wish of somebody outside Run.
type request struct {
	ctx   context.Context
	down  bool
	check bool
	live  bool // only if there is a tunnel

	lane     profile.Lane
	iface    string
	wait     bool
	patience time.Duration

	reply chan reply // buffered
}

type reply struct {
	status agentapi.Status
	err    error
}

// Status is the latest state.
func (a *Agent) Status() agentapi.Status {
	s, _ := a.board.get()
	return s
}

// Watch sends the status now and whenever it changes, until ctx or the agent ends.
// Somebody who watches is worth a question to the server now and then.
func (a *Agent) Watch(ctx context.Context, send func(agentapi.Status) error) error {
	a.watchers.Add(1)
	defer a.watchers.Add(-1)
	for {
		st, changed := a.board.get()
		if err := send(st); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-a.board.ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// Up brings the tunnel up in a lane, or changes the lane, and returns when it is
// up, cannot be, or is not after patience. A first tunnel that nobody waits for
// any more is given up.
func (a *Agent) Up(ctx context.Context, lane profile.Lane, iface string, patience time.Duration) (agentapi.Status, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// It is not worth anybody's time any more.
	defer context.AfterFunc(waiting, a.calls.interrupt)()
	return a.ask(ctx, request{ctx: waiting, lane: lane, iface: iface, wait: true, patience: patience})
}

// Switch changes the lane of a tunnel that there is, and returns when the server
// has answered in the new one, or has not after patience.
func (a *Agent) Switch(ctx context.Context, lane profile.Lane, patience time.Duration) (agentapi.Status, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(waiting, a.calls.interrupt)()
	return a.ask(ctx, request{ctx: waiting, live: true, lane: lane, wait: true, patience: patience})
}

// checkPatience is how long Check waits for the agent and the server; what the
// agent knows then has to do. A dead tunnel is asked for three seconds before
// the server is asked around it.
const checkPatience = 5 * time.Second

// freshBeat is the age of a heartbeat that says enough.
const freshBeat = 3 * time.Second

// Check is Status after the server has been asked whether it still knows the
// session: it may have ended it since the last heartbeat.
func (a *Agent) Check(ctx context.Context) agentapi.Status {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	if st, err := a.ask(ctx, request{ctx: ctx, check: true}); err == nil {
		return st
	}
	return a.Status()
}

// confirm sends a heartbeat now if the tunnel counts as up and the last one is
// old.
func (a *Agent) confirm(ctx context.Context) {
	if a.state != agentapi.Up || a.beat.LastOK != nil && now().Sub(*a.beat.LastOK) < freshBeat {
		return
	}
	one, end := a.calls.begin(ctx)
	defer end()
	a.heartbeat(one)
}

// Begin is Up for those who do not wait: it returns when the wish is understood.
func (a *Agent) Begin(ctx context.Context, lane profile.Lane, iface string) (agentapi.Status, error) {
	return a.ask(ctx, request{ctx: ctx, lane: lane, iface: iface})
}

// Down takes the tunnel down and restores the machine. Run ends.
func (a *Agent) Down(ctx context.Context) error {
	_, err := a.ask(ctx, request{ctx: ctx, down: true})
	return err
}

func (a *Agent) ask(ctx context.Context, r request) (agentapi.Status, error) {
	r.reply = make(chan reply, 1)
	for taken := false; !taken; {
		if r.down {
			// Whatever is waited for, the user does not want to wait for it.
			a.calls.interrupt()
		}
		select {
		case a.requests <- r:
			taken = true
		case <-a.board.ended:
			return agentapi.Status{}, fault.New(fault.Unavailable, "the agent is ending")
		case <-ctx.Done():
			return a.Status(), fault.From(ctx.Err())
		case <-time.After(pollConnecting):
		}
	}
	select {
	case rep := <-r.reply:
		return rep.status, rep.err
	case <-ctx.Done():
		return a.Status(), fault.From(ctx.Err())
	}
}
