package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/dns"
	"vpnd/client/tunnel"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// stopTimeout bounds taking the tunnel down: a few seconds for the server to be
// told, and as much for the machine.
const stopTimeout = 40 * time.Second

// agentGone is how often it is looked whether an ending agent has ended.
const agentGone = 20 * time.Millisecond

// endPatience is how long an agent that has restored the machine may take to end.
const endPatience = 6 * time.Second

// stopAgent takes the tunnel down and waits until the agent's process has let go
// of everything.
func stopAgent(ctx context.Context, conn *rpc.Conn) error {
	_, err := agentapi.PostDown.Call(ctx, conn, nil)
	if err != nil && !errors.Is(err, fault.Unavailable) {
		return err
	}
	if !agentEnded(ctx) {
		return fault.New(fault.Timeout, "the agent does not end").WithHint("see its log: %s", agentLog())
	}
	return nil
}

// agentEnded waits a little for an agent that is ending.
func agentEnded(ctx context.Context) bool {
	for deadline := time.Now().Add(endPatience); ; {
		conn, err := findAgent(ctx)
		if err == nil && conn == nil {
			return true
		}
		if err != nil || time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(agentGone):
		}
	}
}

// clearUp restores the machine after an agent that died. Where there is nothing
// to restore it asks for no privileges.
func clearUp(ctx context.Context) error {
	dirs, err := findDirs()
	if err != nil {
		return err
	}
	j, err := tunnel.ReadJournal(dirs.state)
	if err != nil || j == nil {
		return err
	}
	if err := needPrivileges("restoring the machine after a crash", "sudo vpn down"); err != nil {
		return err
	}
	unlock, err := waitForLock(ctx, dirs)
	if err != nil {
		return err
	}
	defer unlock()
	t, err := tunnel.New(dirs.state, dns.New(dns.DefaultPaths()))
	if err != nil {
		return err
	}
	if err := t.Down(ctx); err != nil {
		return fmt.Errorf("restore the machine: %w", err)
	}
	_ = os.Remove(dirs.socket()) // nobody listens there any more
	return nil
}

// restingStatus is the state of the tunnel where no agent runs. After a crash
// traffic is blocked, and looking at it must not change that; but what is left of
// an earlier boot blocks nothing and is cleared away by whoever may.
func restingStatus(ctx context.Context) (agentapi.Status, error) {
	st := agentapi.Status{State: agentapi.Down}
	dirs, err := findDirs()
	if err != nil {
		return st, err
	}
	j, err := tunnel.ReadJournal(dirs.state)
	switch {
	case err != nil:
		return st, err
	case j == nil:
		return st, nil
	case j.Blocking():
		st.State, st.Blocking, st.Interface = agentapi.Crashed, true, j.Interface
		st.Message = "the agent died; traffic is blocked: 'sudo vpn up' to come back, 'sudo vpn down' to leave"
		return st, nil
	}
	if err := clearUp(ctx); err != nil {
		st.Message = "an earlier tunnel left traces; 'sudo vpn down' removes them"
	}
	return st, nil
}
