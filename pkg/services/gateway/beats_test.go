package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

func TestHeartbeatsShareCallsAndKeepTheirOrder(t *testing.T) {
	w := running(t)
	const clients = 60
	gate := make(chan struct{})
	var largest int
	var mu sync.Mutex
	w.onBeats = func(_ context.Context, r *sessions.BeatRequest) (*sessions.BeatReply, error) {
		<-gate
		mu.Lock()
		defer mu.Unlock()
		largest = max(largest, len(r.Body.Beats))
		out := &sessions.BeatReply{HeartbeatTTL: 77}
		for _, b := range r.Body.Beats { // who it was is in the answer
			if b.Remote != "127.0.0.1" || string(b.User) != "usr_"+strings.TrimPrefix(string(b.Device), "dev_") {
				t.Errorf("beat %+v", b)
			}
			res := sessions.BeatResult{State: sessions.Online, Recovered: strings.HasSuffix(string(b.Device), "7")}
			if strings.HasSuffix(string(b.Device), "3") {
				res = sessions.BeatResult{Refused: "session_closed", Why: sessions.Reason("why_" + b.Device)}
			}
			out.Results = append(out.Results, res)
		}
		return out, nil
	}
	var all sync.WaitGroup
	before := w.counted("sessions")
	for i := range clients {
		token := w.token(func(c jwt.MapClaims) { c["sub"], c["device_id"] = fmt.Sprint("usr_", i), fmt.Sprint("dev_", i) })
		all.Go(func() {
			a := w.call("POST", "/session/heartbeat", token, "")
			switch i % 10 {
			case 3:
				wantProblem(t, "refused", a, 409, fault.Conflict, "session_closed")
				if why := fmt.Sprint("why_dev_", i); !strings.HasSuffix(a.problem.Detail, "("+why+")") || a.problem.Errors[0].Message != why {
					t.Errorf("%d: %s", i, a.body)
				}
			default:
				if want := fmt.Sprintf(`{"state":"online","recovered":%v,"heartbeat_ttl":77}`+"\n", i%10 == 7); a.status != 200 || a.body != want {
					t.Errorf("%d: %d %s, want %s", i, a.status, a.body, want)
				}
			}
		})
	}
	eventually(t, "the calls to be full", func() bool { return w.counted("sessions")-before == 2 })
	time.Sleep(300 * time.Millisecond) // the others queue up
	close(gate)
	all.Wait()
	if n := w.counted("sessions") - before; n > 10 || largest < clients/2 {
		t.Errorf("%d calls, the largest with %d", n, largest)
	}
}

func TestRefusedHeartbeatsSayWhatToDo(t *testing.T) {
	w := running(t)
	for why, want := range map[sessions.Reason]struct {
		status int
		code   fault.Code
		reason string
	}{
		sessions.UserSuspended: {403, fault.Denied, "suspended"},
		sessions.UserDeleted:   {401, fault.Unauthenticated, "user_deleted"},
		sessions.DeviceDeleted: {401, fault.Unauthenticated, "device_deleted"},
		sessions.LoggedOut:     {401, fault.Unauthenticated, "signed_out"},
		sessions.TokenReuse:    {401, fault.Unauthenticated, "signed_out"},
		sessions.ByAdmin:       {409, fault.Conflict, "session_closed"},
		sessions.Replaced:      {409, fault.Conflict, "session_closed"},
		sessions.Expired:       {409, fault.Conflict, "session_closed"},
		"":                     {409, fault.Conflict, "session_closed"},
	} {
		w.onBeats = func(context.Context, *sessions.BeatRequest) (*sessions.BeatReply, error) {
			return &sessions.BeatReply{Results: []sessions.BeatResult{{Refused: "session_closed", Why: why}}}, nil
		}
		wantProblem(t, string(why), w.call("POST", "/session/heartbeat", w.token(), ""), want.status, want.code, want.reason)
	}
	w.onBeats = func(context.Context, *sessions.BeatRequest) (*sessions.BeatReply, error) {
		return &sessions.BeatReply{Results: []sessions.BeatResult{}}, nil
	}
	wantProblem(t, "too few answers", w.call("POST", "/session/heartbeat", w.token(), ""), 503, fault.Unavailable, "")
}

func TestHeartbeatWhoseClientGoesAway(t *testing.T) {
	w := running(t)
	gate := make(chan struct{})
	w.onBeats = func(_ context.Context, r *sessions.BeatRequest) (*sessions.BeatReply, error) {
		<-gate
		return &sessions.BeatReply{Results: make([]sessions.BeatResult, len(r.Body.Beats))}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan answer, 3)
	for range 3 {
		go func() { gone <- w.callFrom(ctx, w.http, "POST", "/session/heartbeat", w.token(), "") }()
	}
	eventually(t, "a call", func() bool { return w.counted("sessions") > 0 })
	cancel()
	for range 3 {
		if a := <-gone; a.err == nil {
			t.Errorf("got %d", a.status)
		}
	}
	close(gate)
	if a := w.call("POST", "/session/heartbeat", w.token(), ""); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestHeartbeatsWhileSessionsIsDown(t *testing.T) {
	w := newWorld(t, 100)
	w.startKeys()
	w.ready()
	wantProblem(t, "not there", w.call("POST", "/session/heartbeat", w.token(), ""), 503, fault.Unavailable, "")
	w.onBeats = func(ctx context.Context, _ *sessions.BeatRequest) (*sessions.BeatReply, error) {
		<-ctx.Done() // it hangs
		return nil, ctx.Err()
	}
	stop := w.startSessions()
	start := time.Now()
	wantProblem(t, "hangs", w.call("POST", "/session/heartbeat", w.token(), ""), 503, fault.Unavailable, "")
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
	stop()
	w.onBeats = nil
	w.startSessions()
	eventually(t, "recovery", func() bool { return w.call("POST", "/session/heartbeat", w.token(), "").status == 200 })
}
