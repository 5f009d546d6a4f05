package auth_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

func TestRefreshTokensRotateAcrossRestarts(t *testing.T) {
	w := newWorld(t)
	first := w.signedIn(t, "alice", "laptop")
	token := first.RefreshToken
	seen := map[string]bool{token: true}
	for range 5 {
		w.restart(t)
		w.advance(29 * 24 * time.Hour) // each renewal starts the time anew
		got, err := w.reauth(t, token)
		if err != nil {
			t.Fatal(err)
		}
		if got.DeviceID != first.DeviceID || got.User != first.User || got.AccessToken != first.AccessToken || got.ExpiresIn != 900 || seen[got.RefreshToken] {
			t.Errorf("got %+v", got)
		}
		token = got.RefreshToken
		seen[token] = true
	}
	w.advance(30 * 24 * time.Hour)
	_, err := w.reauth(t, token)
	wantFault(t, "unused for too long", err, fault.Unauthenticated, "expired")
}

func TestASpentTokenClosesTheFamilyAndTheSession(t *testing.T) {
	w := newWorld(t)
	first := w.signedIn(t, "alice", "laptop")
	second, err := w.reauth(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	third, err := w.reauth(t, second.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	w.takeEvents()
	_, err = w.reauth(t, first.RefreshToken)
	wantFault(t, "spent token", err, fault.Unauthenticated, "reuse_detected")
	if diff := cmp.Diff([]string{string(first.DeviceID) + " token_reuse false"}, w.takeCloses()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"auth.token_reuse alice laptop reuse_detected"}, w.takeEvents()); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		for _, tok := range []string{first.RefreshToken, second.RefreshToken, third.RefreshToken} {
			_, err = w.reauth(t, tok)
			wantFault(t, "token of a closed family", err, fault.Unauthenticated, "reuse_detected")
		}
		w.restart(t)
	}
	err = w.check(t, "usr_alice", first.DeviceID)
	wantFault(t, "connect with the access token", err, fault.Unauthenticated, "signed_out")
	if events := w.takeEvents(); len(events) != 0 {
		t.Errorf("told again: %v", events)
	}
	a := w.attempt("alice")
	a.device.ID = first.DeviceID
	if _, err := w.login(t, a); err != nil {
		t.Errorf("signing in again: %v", err)
	}
	if err := w.check(t, "usr_alice", first.DeviceID); err != nil {
		t.Errorf("after signing in again: %v", err)
	}
}

// TestALostAnswerIsNoReuse: auth died between its commit and its answer, and
// the gateway asks again under the same request id.
func TestALostAnswerIsNoReuse(t *testing.T) {
	w := newWorld(t)
	first := w.signedIn(t, "alice", "laptop")
	renew := func(request, token string) (*client.Tokens, error) {
		req := &authapi.RefreshRequest{}
		req.Body.RefreshToken = token
		return w.auth.Reauth(rpc.WithRequestID(t.Context(), request), req)
	}
	lost, err := renew("one", first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	w.restart(t)
	second, err := renew("one", first.RefreshToken)
	if err != nil {
		t.Fatalf("the same request again: %v", err)
	}
	if second.RefreshToken == lost.RefreshToken {
		t.Error("the lost successor was given out again; it is not stored")
	}
	if _, err = renew("two", second.RefreshToken); err != nil {
		t.Fatalf("the successor that arrived: %v", err)
	}
	_, err = renew("one", first.RefreshToken) // two trades later nothing excuses it
	wantFault(t, "an old token under an old request id", err, fault.Unauthenticated, "reuse_detected")
	if diff := cmp.Diff([]string{string(first.DeviceID) + " token_reuse false"}, w.takeCloses()); diff != "" {
		t.Error(diff)
	}
}

func TestATokenSpentTwiceAtOnceWinsOnce(t *testing.T) {
	w := newWorld(t)
	for round := range 20 {
		a := w.attempt("alice")
		if round > 0 {
			list, err := w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{})
			if err != nil {
				t.Fatal(err)
			}
			a.device.ID = list.Items[0].ID
		}
		tokens, err := w.login(t, a)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() {
				<-start
				_, errs[i] = w.reauth(t, tokens.RefreshToken)
			})
		}
		close(start)
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantFault(t, "loser", err, fault.Unauthenticated, "reuse_detected")
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d renewals succeeded", round, won)
		}
	}
}

func TestTokensThatAreNotOursChangeNothing(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	good := tokens.RefreshToken
	flip := func(i int) string {
		c := byte('A')
		if good[i] == c {
			c = 'B'
		}
		return good[:i] + string(c) + good[i+1:]
	}
	for _, bad := range []string{
		"x", "vpr_", good[4:], good + "A", good[:len(good)-1], good + "=", strings.ToUpper(good), flip(5), flip(30), flip(60), flip(85), "\x00" + good[1:],
	} {
		_, err := w.reauth(t, bad)
		wantFault(t, bad, err, fault.Unauthenticated, "invalid_token")
		_, err = w.auth.Logout(t.Context(), refresh(bad))
		wantFault(t, "logout "+bad, err, fault.Unauthenticated, "invalid_token")
	}
	if _, err := w.reauth(t, good); err != nil {
		t.Errorf("the good token suffered: %v", err)
	}
	if calls := w.takeCloses(); len(calls) != 0 {
		t.Errorf("sessions closed: %v", calls)
	}
}

func TestTheDatabaseHoldsNoToken(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	raw, err := decodeToken(tokens.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	var blobs [][]byte
	if err := w.db.Read(t.Context(), func(q store.Querier) error {
		var a, b, c []byte
		err := q.QueryRow(`SELECT selector, seal_key, current FROM families`).Scan(&a, &b, &c)
		blobs = [][]byte{a, b, c}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		for i := 0; i+12 <= len(raw); i++ {
			if strings.Contains(string(b), string(raw[i:i+12])) {
				t.Errorf("the database holds bytes %d… of the token", i)
			}
		}
	}
}

func TestSuspendedAndDeletedAccountsAreNotRenewed(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.set(func() { w.accounts["alice"].Status = usersapi.Suspended })
	for range 2 {
		_, err := w.reauth(t, tokens.RefreshToken)
		wantFault(t, "suspended", err, fault.Denied, "suspended")
	}
	w.set(func() { w.accounts["alice"].Status = usersapi.Active })
	tokens, err := w.reauth(t, tokens.RefreshToken)
	if err != nil {
		t.Fatalf("active again: %v", err)
	}
	w.set(func() { w.accounts["alice"].Status = usersapi.Deleting })
	_, err = w.reauth(t, tokens.RefreshToken)
	wantFault(t, "deleting", err, fault.Unauthenticated, "account_deleted")
	w.set(func() { delete(w.accounts, "alice") })
	_, err = w.reauth(t, tokens.RefreshToken)
	wantFault(t, "gone", err, fault.Unauthenticated, "account_deleted")
}

func TestAFailedRenewalSpendsNothing(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.set(func() { w.keysDown = errDown })
	_, err := w.reauth(t, tokens.RefreshToken)
	wantFault(t, "keys down", err, fault.Unavailable, "")
	w.set(func() { w.keysDown = nil })
	if _, err := w.reauth(t, tokens.RefreshToken); err != nil {
		t.Errorf("the token was spent: %v", err)
	}
}

func TestLogoutClosesTheSessionKeepsTheDeviceAndCanBeRepeated(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.takeEvents()
	for range 3 {
		if _, err := w.auth.Logout(t.Context(), refresh(tokens.RefreshToken)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{string(tokens.DeviceID) + " logout false"}, w.takeCloses()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"auth.logout alice laptop"}, w.takeEvents()); diff != "" {
		t.Error(diff)
	}
	_, err := w.reauth(t, tokens.RefreshToken)
	wantFault(t, "renewal", err, fault.Unauthenticated, "signed_out")
	wantFault(t, "connect", w.check(t, "usr_alice", tokens.DeviceID), fault.Unauthenticated, "signed_out")
	d, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: "alice/laptop"})
	if err != nil || d.SignedIn || d.ID != tokens.DeviceID {
		t.Errorf("device %+v, %v", d, err)
	}
}

func TestALogoutThatSessionsMissedIsFinishedLater(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.set(func() { w.down = errDown })
	for range 2 {
		_, err := w.auth.Logout(t.Context(), refresh(tokens.RefreshToken))
		wantFault(t, "sessions down", err, fault.Unavailable, "pending")
	}
	wantFault(t, "in force at once", w.check(t, "usr_alice", tokens.DeviceID), fault.Unauthenticated, "signed_out")
	w.restart(t)
	w.takeCloses()
	w.set(func() { w.down = nil })
	w.run(t)
	eventually(t, "the session is closed", func() bool { return contains(w.takeCloses(), string(tokens.DeviceID)+" logout false") })
	eventually(t, "nothing is left", func() bool { return w.tasksLeft(t) == 0 })
}

func TestASignInTakesBackAnUnfinishedLogoutButNotAReuse(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.down = errDown })
	var dev id.Device
	for _, reuse := range []bool{false, true} {
		a := w.attempt("alice")
		a.device.ID = dev
		tokens, err := w.login(t, a)
		if err != nil {
			t.Fatal(err)
		}
		dev = tokens.DeviceID
		if reuse {
			if _, err := w.reauth(t, tokens.RefreshToken); err != nil {
				t.Fatal(err)
			}
			_, err := w.reauth(t, tokens.RefreshToken)
			wantFault(t, "reuse", err, fault.Unauthenticated, "reuse_detected")
		} else if _, err := w.auth.Logout(t.Context(), refresh(tokens.RefreshToken)); !errors.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
		if n := w.tasksLeft(t); n != 1 {
			t.Fatalf("%d tasks", n)
		}
		a = w.attempt("alice")
		a.device.ID = dev
		if _, err := w.login(t, a); err != nil {
			t.Fatal(err)
		}
		if got, want := w.tasksLeft(t), map[bool]int{false: 0, true: 1}[reuse]; got != want {
			t.Errorf("reuse %v: %d tasks after signing in, want %d", reuse, got, want)
		}
	}
}

func TestReuseIsAnsweredAlthoughSessionsIsAway(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	if _, err := w.reauth(t, tokens.RefreshToken); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.down = errDown })
	_, err := w.reauth(t, tokens.RefreshToken)
	wantFault(t, "reuse", err, fault.Unauthenticated, "reuse_detected")
	w.restart(t)
	w.takeCloses()
	w.set(func() { w.down = nil })
	w.run(t)
	eventually(t, "the session is closed", func() bool { return contains(w.takeCloses(), string(tokens.DeviceID)+" token_reuse false") })
}

func TestRevokingAUserVoidsAllTheirTokens(t *testing.T) {
	w := newWorld(t)
	one, two := w.signedIn(t, "alice", "one"), w.signedIn(t, "alice", "two")
	bobs := w.signedIn(t, "bob", "one")
	for range 2 {
		if _, err := w.auth.RevokeUser(t.Context(), &authapi.UserRef{User: "usr_alice"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tokens := range []*client.Tokens{one, two} {
		_, err := w.reauth(t, tokens.RefreshToken)
		wantFault(t, "renewal", err, fault.Unauthenticated, "signed_out")
		wantFault(t, "connect", w.check(t, "usr_alice", tokens.DeviceID), fault.Unauthenticated, "signed_out")
	}
	if _, err := w.reauth(t, bobs.RefreshToken); err != nil {
		t.Errorf("bob: %v", err)
	}
	if calls := w.takeCloses(); len(calls) != 0 {
		t.Errorf("running sessions were closed: %v", calls)
	}
}
