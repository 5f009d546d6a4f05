package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/pkg/fault"
)

func TestUpAndDown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.want(agentapi.Down, "", false)
		w.up("")
		st := w.want(agentapi.Up, "", true)
		if st.Lane != profile.VPN || st.SessionID != "ses_1" || st.Endpoint != "192.0.2.1:51820" || st.Token.State != "valid" || st.RxBytes != 10 {
			t.Errorf("got %+v", st)
		}
		if p := w.profile(); p.Session == nil || p.Lane != profile.VPN || p.Key.IsZero() {
			t.Errorf("not stored: %+v", p)
		}
		if err := w.agent.Down(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		w.want(agentapi.Down, "", false)
		if w.server.closes != 1 || w.machine.downs != 1 || w.profile().Session != nil {
			t.Errorf("closes %d, downs %d", w.server.closes, w.machine.downs)
		}
		if err := w.agent.Down(w.t.Context()); !errors.Is(err, fault.Unavailable) {
			t.Errorf("an ended agent answers %v", err)
		}
	})
}

func TestHeartbeatsComeTwiceInTheirTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.after(30 * time.Minute)
		if n := w.server.beats; n < 35 || n > 46 {
			t.Errorf("%d heartbeats in 30 minutes, want about 40", n)
		}
		if st := w.want(agentapi.Up, "", true); st.Heartbeat.State != "ok" || st.Heartbeat.Way != "inside" {
			t.Errorf("got %+v", st.Heartbeat)
		}
	})
}

func TestTokensAreRenewedEarlyAndStoredBeforeTheyAreUsed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.server.set(func() { w.server.accept = "access-0" })
		began := time.Now()
		w.up("")
		w.after(2 * time.Hour)
		w.want(agentapi.Up, "", true)
		if len(w.server.renewed) < 9 || len(w.server.renewed) > 11 {
			t.Errorf("%d renewals in two hours of 15 minute tokens, want about 10", len(w.server.renewed))
		}
		if first := w.server.renewed[0].Sub(began); first < 12*time.Minute || first > 14*time.Minute {
			t.Errorf("first renewed after %s, want about 12 minutes", first)
		}
		if w.server.unstored != 0 {
			t.Errorf("%d calls with a token that was not on disk", w.server.unstored)
		}
		if p := w.profile(); p.Tokens.RenewalSent {
			t.Error("the profile says a renewal is under way")
		}
	})
}

func TestAServerThatIsAwayChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		away := fault.New(fault.Unavailable, "not reachable")
		w.server.set(func() { w.server.beatErr, w.server.renewErr, w.server.initiateErr = away, away, away })
		w.after(3 * time.Hour)
		st := w.want(agentapi.Up, "", true)
		if st.Heartbeat.State != "failing" || st.Token.State != "expired" {
			t.Errorf("got %+v, %+v", st.Heartbeat, st.Token)
		}
		if w.server.renewals > 3*70 {
			t.Errorf("%d renewals tried in three hours", w.server.renewals)
		}
		w.server.set(func() { w.server.beatErr, w.server.renewErr, w.server.initiateErr = nil, nil, nil })
		w.after(3 * time.Minute)
		st = w.want(agentapi.Up, "", true)
		if st.Heartbeat.State != "ok" || st.Token.State != "valid" || w.server.initiated != 1 {
			t.Errorf("got %+v, %+v, %d sessions", st.Heartbeat, st.Token, w.server.initiated)
		}
	})
}

func TestARefusedTokenDoesNotTouchTheTunnel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.server.set(func() {
			w.server.renewErr = fault.New(fault.Unauthenticated, "no").WithReason("invalid_token")
			w.server.accept = "none"
		})
		w.after(time.Hour)
		st := w.want(agentapi.Up, "", true)
		if st.Token.State != "refused" || st.Heartbeat.State != "failing" || w.server.renewals != 1 {
			t.Errorf("got %+v, %d renewals", st.Token, w.server.renewals)
		}
		// Signing in by hand is noticed.
		w.server.set(func() { w.server.renewErr, w.server.accept, w.server.refresh = nil, "", "refresh-50" })
		w.signIn(50)
		w.after(3 * time.Minute)
		if st := w.want(agentapi.Up, "", true); st.Token.State != "valid" || st.Heartbeat.State != "ok" {
			t.Errorf("got %+v, %+v", st.Token, st.Heartbeat)
		}
	})
}

// A refresh token works once, and a spent one closes the session: one whose
// renewal was not answered must not be sent again while there is a tunnel to lose.
func TestARenewalWithoutAnAnswerIsNotRepeated(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.server.set(func() { w.server.renewLost = true })
		w.after(time.Hour)
		st := w.want(agentapi.Up, "", true)
		if w.server.renewals != 1 || st.Token.State != "uncertain" {
			t.Errorf("%d renewals, token %+v", w.server.renewals, st.Token)
		}
		if !w.profile().Tokens.RenewalSent {
			t.Error("the next agent would not know")
		}
	})
}

func TestARenewalThatNeverReachedTheServerIsRepeated(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.server.set(func() { w.server.renewErr = fault.New(fault.Unavailable, "no route") })
		w.after(14 * time.Minute)
		if w.profile().Tokens.RenewalSent || w.server.renewals < 2 {
			t.Errorf("%d renewals", w.server.renewals)
		}
		w.server.set(func() { w.server.renewErr = nil })
		w.after(2 * time.Minute)
		if st := w.want(agentapi.Up, "", true); st.Token.State != "valid" {
			t.Errorf("got %+v", st.Token)
		}
	})
}

func TestAnAccessTokenThatIsNotAcceptedIsRenewed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.server.set(func() { w.server.accept = "access-9" }) // as if the server had new keys
		w.after(time.Minute)
		if st := w.want(agentapi.Up, "", true); w.server.renewals != 1 || st.Heartbeat.State != "ok" {
			t.Errorf("%d renewals, heartbeat %+v", w.server.renewals, st.Heartbeat)
		}
	})
}

func closedBecause(why string) error {
	return fault.New(fault.Conflict, "the session is closed: %s", why).WithReason("session_closed").WithFields(fault.Field{Path: "session", Message: why})
}

func TestWhatTheServerSaysOfTheSession(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		state  agentapi.State
		reason string
	}{
		"killed":            {closedBecause("killed"), agentapi.Closed, "killed"},
		"suspended":         {closedBecause("user_suspended"), agentapi.Closed, "user_suspended"},
		"suspended, denied": {fault.New(fault.Denied, "x").WithReason("suspended"), agentapi.Closed, "suspended"},
		"deleted":           {closedBecause("user_deleted"), agentapi.Closed, "user_deleted"},
		"device deleted":    {fault.New(fault.Unauthenticated, "x").WithReason("device_deleted"), agentapi.Closed, "device_deleted"},
		"signed out":        {fault.New(fault.Unauthenticated, "x").WithReason("signed_out"), agentapi.Closed, "signed_out"},
		"replaced":          {closedBecause("replaced"), agentapi.Closed, "replaced"},
		"no reason given":   {fault.New(fault.Conflict, "x").WithReason("session_closed"), agentapi.Closed, "session_closed"},
		"killed, in words":  {fault.New(fault.Conflict, "the session is closed (killed)").WithReason("session_closed"), agentapi.Closed, "killed"},
		"expired, in words": {fault.New(fault.Conflict, "the session is closed (expired)").WithReason("session_closed"), agentapi.Up, ""},
		"access expired":    {fault.New(fault.Unauthenticated, "the access token has expired").WithReason("expired"), agentapi.Up, ""},
		"expired":           {closedBecause("expired"), agentapi.Up, ""},
		"silent":            {closedBecause("silent"), agentapi.Up, ""},
		"addresses taken":   {closedBecause("lease_release"), agentapi.Up, ""},
		"unknown":           {fault.New(fault.NotFound, "no session"), agentapi.Up, ""},
		"throttled":         {fault.New(fault.Throttled, "x").WithRetryAfter(time.Minute), agentapi.Up, ""},
		"internal":          {fault.New(fault.Internal, "x"), agentapi.Up, ""},
		"something new":     {fault.New(fault.Exhausted, "x"), agentapi.Up, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.up("")
				w.server.set(func() { w.server.beatErr = tc.err })
				for beats := 0; beats == 0; w.server.set(func() { beats = w.server.beats }) {
					w.after(time.Second)
				}
				w.server.set(func() { w.server.beatErr = nil })
				w.after(10 * time.Second)
				w.want(tc.state, tc.reason, true)
				if tc.state == agentapi.Closed {
					if !w.machine.silenced || w.server.entered || w.profile().Session != nil {
						t.Error("the device still sends to a server that ended the session")
					}
					w.after(time.Hour)
					w.want(tc.state, tc.reason, true)
					// The user decides.
					w.up("")
				}
			})
		})
	}
}

func TestOnceUpNothingGoesPastTheTunnel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.server.set(func() {
			w.server.beatErr = closedBecause("expired")
			w.server.initiateErr = fault.New(fault.Denied, "no").WithReason("suspended")
		})
		w.after(2 * time.Minute)
		w.want(agentapi.Closed, "suspended", true)
		if w.machine.downs != 0 {
			t.Error("the machine was restored without the user's word")
		}
	})
}

func TestASilentServerIsStaleAndSoughtElsewhere(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.after(10 * time.Second)
		w.machine.silent()
		w.after(100 * time.Second)
		w.want(agentapi.Up, "", true)
		w.after(80 * time.Second)
		w.want(agentapi.Stale, "", true)
		w.after(time.Minute)
		tried := map[string]bool{}
		for _, e := range w.machine.connects {
			tried[e.String()] = true
		}
		if !tried["192.0.2.1:51820"] || !tried["[2001:db8::1]:51820"] {
			t.Errorf("tried only %v", w.machine.connects)
		}
		w.machine.set(func() { w.machine.answers = true })
		w.after(30 * time.Second)
		w.want(agentapi.Up, "", true)
		if w.server.initiated != 1 {
			t.Errorf("%d sessions", w.server.initiated)
		}
	})
}

func TestASleepingMachineWakesUpStale(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.machine.silent()
		w.after(5 * time.Hour)
		w.want(agentapi.Stale, "", true)
		w.machine.set(func() { w.machine.answers = true })
		w.after(30 * time.Second)
		w.want(agentapi.Up, "", true)
	})
}

func TestSilenceAndRefusedTokensEndInClosed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.machine.silent()
		w.server.set(func() {
			w.server.accept, w.server.renewErr = "none", fault.New(fault.Unauthenticated, "no").WithReason("invalid_token")
		})
		w.after(10 * time.Minute)
		st := w.want(agentapi.Closed, "signed_out", true)
		if !strings.Contains(st.Message, "vpn login") {
			t.Errorf("message %q", st.Message)
		}
	})
}

func TestAnotherLaneNeedsNoNewSession(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.up(profile.Tor)
		st := w.want(agentapi.Up, "", true)
		if st.Lane != profile.Tor || st.Addresses[0].String() != "10.9.0.2/32" || st.Endpoint != "192.0.2.1:51821" {
			t.Errorf("got %+v", st)
		}
		if w.server.initiated != 1 || w.machine.downs != 0 || w.profile().Lane != profile.Tor {
			t.Errorf("%d sessions, %d downs, lane %s stored", w.server.initiated, w.machine.downs, w.profile().Lane)
		}
		w.up("") // the one used last
		if st := w.agent.Status(); st.Lane != profile.Tor {
			t.Errorf("went back to %s", st.Lane)
		}
	})
}

// A lane that does not answer must not be replaced by the other one: whoever asked
// for Tor does not want to be seen.
func TestALaneThatDoesNotAnswerStaysChosen(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.machine.silent()
		ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
		defer cancel()
		if _, err := w.agent.Up(ctx, profile.Tor, "vpn0", time.Minute); !errors.Is(err, fault.Timeout) {
			t.Errorf("got %v", err)
		}
		w.after(10 * time.Minute)
		if st := w.want(agentapi.Connecting, "", true); st.Lane != profile.Tor {
			t.Errorf("in lane %s", st.Lane)
		}
		w.machine.set(func() { w.machine.answers = true })
		w.up(profile.VPN)
	})
}

func TestAFirstAttemptThatIsRefusedLeavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.server.set(func() {
			w.server.initiateErr = fault.New(fault.Denied, "the account is suspended").WithReason("suspended")
		})
		_, err := w.agent.Up(w.t.Context(), "", "vpn0", time.Minute)
		if !errors.Is(err, fault.Denied) || fault.ReasonOf(err) != "suspended" {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		w.want(agentapi.Down, "", false)
		if w.machine.downs != 1 {
			t.Errorf("%d downs", w.machine.downs)
		}
	})
}

func TestAFirstAttemptNobodyWaitsForIsGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.set(func() { w.machine.answers = false })
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		defer cancel()
		if _, err := w.agent.Up(ctx, "", "vpn0", time.Minute); !errors.Is(err, fault.Timeout) {
			t.Errorf("got %v", err)
		}
		w.after(time.Second)
		w.want(agentapi.Down, "", false)
		if w.machine.downs != 1 || w.server.closes != 1 {
			t.Errorf("%d downs, %d closes", w.machine.downs, w.server.closes)
		}
	})
}

func TestAFirstAttemptThatTakesTooLongSaysHowFarItGot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.machine.set(func() { w.machine.answers = false })
		_, err := w.agent.Up(w.t.Context(), "", "vpn0", 20*time.Second)
		if !errors.Is(err, fault.Timeout) || fault.ReasonOf(err) != "no_handshake" || !strings.Contains(fault.From(err).Hint, ":51820") {
			t.Errorf("got %v, hint %q", err, fault.From(err).Hint)
		}
		synctest.Wait()
		w.want(agentapi.Down, "", false)
	})
	inWorld(t, func(w *world) {
		w.server.set(func() { w.server.initiateErr = fault.New(fault.Unavailable, "not there") })
		_, err := w.agent.Up(w.t.Context(), "", "vpn0", 20*time.Second)
		if fault.ReasonOf(err) != "no_answer" || !strings.Contains(err.Error(), "not there") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWithoutWaitingItKeepsTrying(t *testing.T) {
	inWorld(t, func(w *world) {
		w.server.set(func() { w.server.initiateErr = fault.New(fault.Unavailable, "not there").WithRetryAfter(time.Second) })
		if st, err := w.agent.Begin(w.t.Context(), "", "vpn0"); err != nil || st.State != agentapi.Connecting {
			t.Fatalf("got %+v, %v", st, err)
		}
		w.after(time.Hour)
		w.want(agentapi.Connecting, "", false)
		if w.server.initiated < 30 || w.server.initiated > 140 {
			t.Errorf("%d tries in an hour", w.server.initiated)
		}
		w.server.set(func() { w.server.initiateErr = nil })
		w.after(2 * time.Minute)
		w.want(agentapi.Up, "", true)
	})
}

func TestTrafficThatWasBlockedByADeadAgentStaysBlocked(t *testing.T) {
	inWorld(t, func(w *world) {
		if err := w.agent.Down(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		<-w.ended
		w.machine.set(func() { w.machine.routed, w.machine.answers, w.machine.downs = true, false, 0 })
		w.start()
		w.want(agentapi.Crashed, "", true)
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		defer cancel()
		_, _ = w.agent.Up(ctx, "", "vpn0", time.Minute)
		if !w.machine.held {
			t.Error("what the dead agent blocked was not taken over")
		}
		w.after(time.Minute)
		w.want(agentapi.Connecting, "", true)
		w.server.set(func() { w.server.beatErr = closedBecause("killed") })
		w.after(30 * time.Minute) // heartbeats wait for a session that is asked for again and again
		w.want(agentapi.Closed, "killed", true)
		if w.machine.downs != 0 {
			t.Error("the machine was restored")
		}
	})
}

func TestTheSessionOfADeadAgentServesWhileTheServerIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		stored := w.profile().Session
		if err := w.agent.Down(w.t.Context()); err != nil {
			t.Fatal(err)
		}
		<-w.ended
		err := w.store.Update(w.t.Context(), func(p *profile.Profile, _ func() error) error { p.Session = stored; return nil })
		if err != nil {
			t.Fatal(err)
		}
		w.server.set(func() { w.server.initiateErr = fault.New(fault.Unavailable, "not there") })
		w.start()
		w.up("")
		w.server.set(func() { w.server.initiateErr = nil })
	})
}

func TestAnAgentThatNobodyWantsEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.after(time.Minute)
		select {
		case err := <-w.ended:
			if err != nil {
				t.Error(err)
			}
			w.ended <- nil
		default:
			t.Error("it is still there")
		}
		if w.machine.downs != 0 {
			t.Error("it changed the machine")
		}
	})
}

func TestDownDoesNotWaitForTheServer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.machine.silent()
		w.after(10 * time.Minute)
		began := time.Now()
		if err := w.agent.Down(w.t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

func TestASignalTakesTheTunnelDown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.up("")
		w.cancel()
		synctest.Wait()
		w.want(agentapi.Down, "", false)
		if w.machine.downs != 1 || w.server.closes != 1 {
			t.Errorf("%d downs, %d closes", w.machine.downs, w.server.closes)
		}
	})
}

func TestNobodySignedIn(t *testing.T) {
	inWorld(t, func(w *world) {
		err := w.store.Update(w.t.Context(), func(p *profile.Profile, _ func() error) error { p.Tokens = profile.Tokens{}; return nil })
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.agent.Up(w.t.Context(), "", "vpn0", time.Minute)
		if !errors.Is(err, fault.Unauthenticated) || !strings.Contains(fault.From(err).Hint, "vpn login") {
			t.Errorf("got %v", err)
		}
	})
}
