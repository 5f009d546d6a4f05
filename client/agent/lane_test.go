package agent_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

func (w *world) changeLane(lane profile.Lane) (agentapi.Status, error) {
	st, err := w.agent.Switch(w.t.Context(), lane, time.Minute)
	synctest.Wait()
	return st, err
}

func TestOnlyALiveTunnelChangesItsLane(t *testing.T) {
	inWorld(t, func(w *world) {
		refused := func(when string) {
			t.Helper()
			_, err := w.changeLane(profile.Tor)
			if f := fault.From(err); !errors.Is(err, fault.Conflict) || f.Reason != "not_up" || f.Hint != "vpn up --lane tor" {
				t.Errorf("%s: %v", when, err)
			}
		}
		refused("down")
		if w.server.initiated != 0 || len(w.machine.steps) != 0 {
			t.Errorf("%d sessions, steps %v", w.server.initiated, w.machine.steps)
		}
		w.up(profile.VPN)
		w.server.set(func() { w.server.beatErr = closedBecause("killed") })
		w.after(time.Minute)
		w.want(agentapi.Closed, "killed", true)
		refused("closed")
		w.want(agentapi.Closed, "killed", true)
	})
}

// Between the old lane's last packet and the new lane's first there is no peer,
// and the rules are never touched.
func TestALaneChangeIsSilentBetweenTheLanes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up(profile.VPN)
		w.machine.set(func() { w.machine.steps = nil })
		for _, lane := range []profile.Lane{profile.Tor, profile.VPN, profile.VPN} {
			st, err := w.changeLane(lane)
			if err != nil || st.Lane != lane || st.State != agentapi.Up || st.SessionID != "ses_1" || !st.Blocking {
				t.Fatalf("%s: %+v, %v", lane, st, err)
			}
			if p := w.profile(); p.Lane != lane {
				t.Errorf("remembered is %s, want %s", p.Lane, lane)
			}
		}
		want := []string{"silence", "connect 192.0.2.1:51821", "silence", "connect 192.0.2.1:51820"}
		if d := cmp.Diff(want, w.machine.steps); d != "" {
			t.Error(d)
		}
		if w.server.initiated != 1 || w.machine.downs != 0 {
			t.Errorf("%d sessions, %d times down", w.server.initiated, w.machine.downs)
		}
	})
}

// A name that cannot be looked up must not leave traffic in the lane of before.
func TestALaneThatCannotBeReachedIsNotReplacedByTheOldOne(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up(profile.VPN)
		w.names.set(fault.New(fault.Unavailable, "no name server answers"))
		_, err := w.agent.Switch(w.t.Context(), profile.Tor, 5*time.Second)
		if !errors.Is(err, fault.Timeout) {
			t.Errorf("got %v", err)
		}
		st := w.want(agentapi.Connecting, "", true)
		if !w.machine.silenced || st.Lane != profile.Tor || st.LaneState == nil || st.LaneState.State != "unknown" {
			t.Errorf("silenced %v, %+v", w.machine.silenced, st)
		}
		w.names.set(nil)
		w.after(time.Minute)
		w.want(agentapi.Up, "", true)
	})
}

func TestALaneThatIsNotUnderstoodIsRefusedAndNothingChanges(t *testing.T) {
	inWorld(t, func(w *world) {
		w.server.set(func() { w.server.torEndpoint = "nonsense" })
		w.up(profile.VPN)
		before := slices.Clone(w.machine.steps)
		if _, err := w.changeLane(profile.Tor); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
		if st := w.want(agentapi.Up, "", true); st.Lane != profile.VPN || !slices.Equal(before, w.machine.steps) {
			t.Errorf("lane %s, steps %v", st.Lane, w.machine.steps)
		}
	})
}

func TestWhatTheServerSaysOfTheLane(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx := w.t.Context()
		w.server.states = client.LaneStates{
			VPN: client.LaneState{State: "up"},
			Tor: client.LaneState{State: "maintenance", Reason: "back at noon", Exits: []string{"de"}, Strict: true, ExitCountry: "de"},
		}
		w.up(profile.VPN)
		if st := w.agent.Status(); st.LaneState != nil {
			t.Errorf("not asked yet, and shows %+v", st.LaneState)
		}
		check := func(when string, want client.LaneState, asked int) {
			t.Helper()
			got := w.agent.Check(ctx).LaneState
			if got == nil || !cmp.Equal(*got, want) || w.server.lanesAsked != asked {
				t.Errorf("%s: %+v after %d questions, want %+v after %d", when, got, w.server.lanesAsked, want, asked)
			}
		}
		check("first", w.server.states.VPN, 1)
		w.server.set(func() { w.server.states.VPN = client.LaneState{State: "down"} })
		check("again at once", w.server.states.VPN, 2)
		if _, err := w.changeLane(profile.Tor); err != nil {
			t.Fatal(err)
		}
		check("another lane", w.server.states.Tor, 3)
		w.after(freshEnough)
		check("later", w.server.states.Tor, 4)

		unknown := func(why string) client.LaneState { return client.LaneState{State: "unknown", Reason: why} }
		w.server.set(func() { w.server.lanesErr = fault.New(fault.NotFound, "no operation at GET /session/lanes") })
		w.after(freshEnough)
		check("an old server", unknown("the server is too old to tell"), 5)
		w.server.set(func() { w.server.lanesErr = fault.New(fault.NotFound, "no session is open").WithReason("no_session") })
		w.after(freshEnough)
		check("no session", unknown("no session is open"), 6)
		w.server.set(func() {
			w.server.lanesErr = fault.New(fault.Unavailable, "away")
			w.server.beatErr = w.server.lanesErr
		})
		w.after(freshEnough)
		check("a server that is away is not asked twice", unknown("away"), 6)
		w.want(agentapi.Up, "", true)
	})
}

// freshEnough is a little more than what Check takes for fresh.
const freshEnough = 4 * time.Second

func TestWhoWatchesSeesTheLaneChange(t *testing.T) {
	inWorld(t, func(w *world) {
		w.server.states.VPN.State = "up"
		w.up(profile.VPN)
		w.after(time.Hour)
		if w.server.lanesAsked != 0 {
			t.Errorf("asked %d times for nobody", w.server.lanesAsked)
		}
		seen := make(chan string, 100)
		ctx, cancel := context.WithCancel(w.t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = w.agent.Watch(ctx, func(st agentapi.Status) error { // it ends with ctx
				if st.LaneState != nil {
					seen <- st.LaneState.State
				}
				return nil
			})
		}()
		w.after(15 * time.Second)
		w.server.set(func() { w.server.states.VPN.State = "down" })
		w.after(15 * time.Second)
		asked := w.server.lanesAsked
		cancel()
		<-ended
		if asked < 2 || asked > 4 {
			t.Errorf("asked %d times in 30 s", asked)
		}
		var states []string
		for len(seen) > 0 {
			if s := <-seen; len(states) == 0 || states[len(states)-1] != s {
				states = append(states, s)
			}
		}
		if d := cmp.Diff([]string{"up", "down"}, states); d != "" {
			t.Error(d)
		}
	})
}
