package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
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
)

func TestSigningInGivesAPairAndADevice(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	for _, login := range []string{"alice", "ALICE@example.org"} {
		a := w.attempt("alice")
		a.login, a.device.Name = login, "laptop of "+login
		got, err := w.login(t, a)
		if err != nil {
			t.Fatal(err)
		}
		want := &client.Tokens{
			AccessToken: fmt.Sprintf("access usr_alice %s 15m0s", got.DeviceID), TokenType: "Bearer", ExpiresIn: 900,
			RefreshToken: got.RefreshToken, RefreshExpiresIn: 30 * 24 * 3600, DeviceID: got.DeviceID,
			User: client.TokenUser{ID: "usr_alice", Username: "alice", Email: "alice@example.org"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if err := w.check(t, "usr_alice", got.DeviceID); err != nil {
			t.Errorf("the device may not connect: %v", err)
		}
	}
	want := []string{
		"device.created alice laptop of alice", "auth.login alice laptop of alice",
		"device.created alice laptop of ALICE@example.org", "auth.login alice laptop of ALICE@example.org",
	}
	if diff := cmp.Diff(want, w.takeEvents()); diff != "" {
		t.Error(diff)
	}
	eventually(t, "users hears of both", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.noted) == 2 })
}

func TestADeviceIsTheSameAfterSigningInAgain(t *testing.T) {
	w := newWorld(t)
	first := w.signedIn(t, "alice", "laptop")
	w.restart(t)
	w.advance(time.Hour)
	a := w.attempt("alice")
	a.device = client.LoginDevice{ID: first.DeviceID, Name: "renamed", OS: "windows"}
	second, err := w.login(t, a)
	if err != nil || second.DeviceID != first.DeviceID {
		t.Fatalf("got %+v, %v", second, err)
	}
	list, err := w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	at := w.now()
	want := []authapi.Device{{
		ID: first.DeviceID, User: "usr_alice", Username: "alice", Name: "renamed", OS: "windows",
		CreatedAt: at.Add(-time.Hour), LastSeenAt: &at, SignedIn: true,
	}}
	if diff := cmp.Diff(want, list.Items); diff != "" {
		t.Error(diff)
	}
	_, err = w.reauth(t, first.RefreshToken)
	wantFault(t, "token of the earlier sign-in", err, fault.Unauthenticated, "invalid_token")
	if _, err := w.reauth(t, second.RefreshToken); err != nil {
		t.Errorf("the earlier token harmed the later: %v", err)
	}
	if calls := w.takeCloses(); len(calls) != 0 {
		t.Errorf("sessions closed: %v", calls)
	}
}

func TestStrangersAndWrongPasswordsGetOneAnswer(t *testing.T) {
	w := newWorld(t)
	w.account("gone", 1).Status = usersapi.Deleting
	w.account("idle", 1).Status = usersapi.Suspended
	var texts []string
	for i, name := range []string{"alice", "nobody", "nobody@example.org", "gone", "idle"} {
		a := w.attempt(name)
		a.remote = fmt.Sprintf("192.0.2.%d", i)
		a.password = "wrong password"
		before := w.hashed
		_, err := w.login(t, a)
		wantFault(t, name, err, fault.Unauthenticated, "invalid_credentials")
		texts = append(texts, fmt.Sprintf("%v %+v", err, fault.From(err).Hint))
		if w.hashed != before+1 {
			t.Errorf("%s: %d Argon2 computations, want 1", name, w.hashed-before)
		}
	}
	for _, s := range texts {
		if s != texts[0] {
			t.Errorf("%q differs from %q", s, texts[0])
		}
	}
	a := w.attempt("gone")
	_, err := w.login(t, a)
	wantFault(t, "being deleted, right password", err, fault.Unauthenticated, "invalid_credentials")
	_, err = w.login(t, w.attempt("idle"))
	wantFault(t, "suspended, right password", err, fault.Denied, "suspended")
	if !contains(w.takeEvents(), "auth.refused idle suspended") {
		t.Error("no event of the refusal")
	}
}

func TestAStaleSignInTellsTheServersTime(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		off    time.Duration
		reason string
	}{{-121 * time.Second, "expired"}, {121 * time.Second, "clock"}, {-365 * 24 * time.Hour, "expired"}, {-119 * time.Second, ""}, {119 * time.Second, ""}} {
		a := w.attempt("alice")
		a.issuedAt = w.now().Add(tc.off)
		a.device.Name = fmt.Sprint(tc.off)
		_, err := w.login(t, a)
		if tc.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.off, err)
			}
			continue
		}
		wantFault(t, tc.off.String(), err, fault.Unauthenticated, tc.reason)
		if !strings.Contains(err.Error(), "2026-03-01T12:00:00Z") {
			t.Errorf("%v does not tell the server's time", err)
		}
	}
}

func TestARecordedSignInCannotBeUsedAgain(t *testing.T) {
	w := newWorld(t)
	good := w.attempt("alice")
	if _, err := w.login(t, good); err != nil {
		t.Fatal(err)
	}
	bad := w.attempt("alice")
	bad.password = "wrong password"
	_, err := w.login(t, bad)
	wantFault(t, "wrong password", err, fault.Unauthenticated, "invalid_credentials")
	for range 20 { // more than the guard would let through: replays cost the user nothing
		for _, a := range []attempt{good, bad} {
			_, err := w.login(t, a)
			wantFault(t, "replay", err, fault.Unauthenticated, "replayed")
		}
	}
	w.restart(t)
	_, err = w.login(t, good)
	wantFault(t, "replay after a restart", err, fault.Unauthenticated, "replayed")
	w.advance(3 * time.Minute)
	_, err = w.login(t, good)
	wantFault(t, "replay when it is old", err, fault.Unauthenticated, "expired")
	if _, err := w.login(t, w.attempt("alice")); err != nil {
		t.Errorf("the user is locked out: %v", err)
	}
}

func TestConcurrentReplaysGiveOnePair(t *testing.T) {
	w := newWorld(t)
	a := w.attempt("alice")
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() { _, errs[i] = w.login(t, a) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case fault.ReasonOf(err) != "replayed" && fault.ReasonOf(err) != "throttled":
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d sign-ins succeeded", won)
	}
}

func TestSealedWronglyIsInvalid(t *testing.T) {
	w := newWorld(t)
	req := &authapi.LoginRequest{}
	req.Body.KID = "bad"
	_, err := w.auth.Login(t.Context(), req)
	wantFault(t, "unknown key", err, fault.Invalid, "unknown_key")
	req.Body.KID, req.Body.Ciphertext = "good", base64.StdEncoding.EncodeToString([]byte(`{"login":"alice"}`))
	_, err = w.auth.Login(t.Context(), req)
	wantFault(t, "not a sign-in", err, fault.Invalid, "")
	a := w.attempt("alice")
	a.nonce = "short"
	_, err = w.login(t, a)
	wantFault(t, "bad nonce", err, fault.Invalid, "")
}

func TestWithoutKeysSignInsAreUnavailable(t *testing.T) {
	w := newWorld(t)
	w.set(func() {
		w.keysDown = fault.New(fault.Unavailable, "the keys are not ready").WithReason("keys_not_ready").WithRetryAfter(time.Second)
	})
	w.run(t)
	_, err := w.login(t, w.attempt("alice"))
	wantFault(t, "login", err, fault.Unavailable, "keys_not_ready")
	if fault.From(err).RetryAfter == 0 {
		t.Error("no Retry-After")
	}
	if w.auth.Ready() == nil {
		t.Error("ready without keys")
	}
	w.set(func() { w.keysDown = nil })
	eventually(t, "auth is ready", func() bool { return w.auth.Ready() == nil })
	if _, err := w.login(t, w.attempt("alice")); err != nil {
		t.Error(err)
	}
	w.set(func() { w.keysDown = fault.New(fault.Denied, "auth may not call keys.open") })
	_, err = w.login(t, w.attempt("alice"))
	wantFault(t, "a sibling's refusal is not the client's", err, fault.Internal, "")
}

func TestDeviceLimitAndForeignDevices(t *testing.T) {
	w := newWorld(t)
	first := w.signedIn(t, "bob", "one")
	w.signedIn(t, "bob", "two")
	a := w.attempt("bob")
	a.device.Name = "three"
	_, err := w.login(t, a)
	wantFault(t, "third of two", err, fault.Exhausted, "device_limit")
	if h := fault.From(err).Hint; !strings.Contains(h, "vpnctl device delete bob/") {
		t.Errorf("hint %q", h)
	}
	a = w.attempt("bob")
	a.device.ID = first.DeviceID
	if _, err := w.login(t, a); err != nil {
		t.Errorf("a device that exists: %v", err)
	}
	alices := w.signedIn(t, "alice", "laptop")
	for _, dev := range []id.Device{alices.DeviceID, "dev_unknown", "'; drop table devices"} {
		a = w.attempt("bob")
		a.device.ID = dev
		_, err = w.login(t, a)
		wantFault(t, string(dev), err, fault.Invalid, "unknown_device")
	}
	if err := w.check(t, "usr_alice", alices.DeviceID); err != nil {
		t.Errorf("alice's device was touched: %v", err)
	}
	if err := w.check(t, "usr_bob", alices.DeviceID); fault.ReasonOf(err) != "device_deleted" {
		t.Errorf("bob may use alice's device: %v", err)
	}
	// A deleted device makes room.
	if _, err := w.auth.DeviceDelete(t.Context(), &authapi.DeviceRef{Device: "bob/two"}); err != nil {
		t.Fatal(err)
	}
	w.signedIn(t, "bob", "three")
}

func TestNamesOfDevicesAreUniquePerUser(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("ä", 64)
	w.account("carol", 10)
	var got []string
	ids := map[string]id.Device{}
	for range 3 {
		for _, n := range []string{"laptop", long} {
			tokens := w.signedIn(t, "carol", n)
			d, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: string(tokens.DeviceID)})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, d.Name)
			ids[d.Name] = d.ID
		}
	}
	want := []string{"laptop", long, "laptop-2", strings.Repeat("ä", 62) + "-2", "laptop-3", strings.Repeat("ä", 62) + "-3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// It keeps its name when it asks for the taken one again.
	a := w.attempt("carol")
	a.device.ID = ids["laptop-2"]
	if _, err := w.login(t, a); err != nil {
		t.Fatal(err)
	}
	d, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: "carol/laptop-2"})
	if err != nil || d.ID != ids["laptop-2"] {
		t.Errorf("got %+v, %v", d, err)
	}
	w.signedIn(t, "alice", "laptop")
	if _, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: "alice/laptop"}); err != nil {
		t.Errorf("another user's laptop: %v", err)
	}
}

// Someone guesses at alice's password from many addresses. She must still be
// able to sign in where she was before.
func TestGuessingIsSlowedAndTheOwnerIsNotLockedOut(t *testing.T) {
	w := newWorld(t)
	home := w.attempt("alice")
	home.remote = "2001:db8:1::5"
	mine, err := w.login(t, home)
	if err != nil {
		t.Fatal(err)
	}
	w.takeEvents()
	guess := func(i int, login string) error {
		a := w.attempt("alice")
		a.login, a.password, a.remote = login, "wrong password", fmt.Sprintf("203.0.113.%d", i)
		_, err := w.login(t, a)
		return err
	}
	for i := range 4 {
		wantFault(t, "guess", guess(i, []string{"alice", "alice@example.org"}[i%2]), fault.Unauthenticated, "invalid_credentials")
	}
	before := w.hashed
	for i := range 50 {
		err := guess(100+i, "alice")
		wantFault(t, "one too many", err, fault.Throttled, "throttled")
		if fault.From(err).RetryAfter <= 0 {
			t.Error("no Retry-After")
		}
	}
	if w.hashed != before {
		t.Error("throttled attempts cost Argon2")
	}
	refused := 0
	for _, e := range w.takeEvents() {
		if e == "auth.refused alice throttled" {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d events of throttling, want one", refused)
	}

	elsewhere := w.attempt("alice")
	elsewhere.remote = "198.51.100.9"
	_, err = w.login(t, elsewhere)
	wantFault(t, "right password from a new place", err, fault.Throttled, "throttled")
	known := w.attempt("alice")
	known.remote, known.device.ID = "198.51.100.9", mine.DeviceID
	if _, err := w.login(t, known); err != nil {
		t.Errorf("a known device: %v", err)
	}
	known = w.attempt("alice")
	known.remote, known.device.Name = "198.51.100.9", "phone"
	if _, err := w.login(t, known); err != nil {
		t.Errorf("a known address: %v", err)
	}

	// Who has stolen a device id can guess no faster than anybody.
	w.set(func() { w.hashed = 0 })
	for range 20 {
		a := w.attempt("alice")
		a.password, a.device.ID = "wrong password", mine.DeviceID
		_, _ = w.login(t, a)
	}
	if w.hashed != 4 {
		t.Errorf("%d guesses with a stolen device id", w.hashed)
	}
	w.advance(10 * time.Minute)
	if err := guess(1, "alice"); fault.CodeOf(err) != fault.Unauthenticated {
		t.Errorf("after the window: %v", err)
	}
}

func TestOneAddressIsSlowedWhateverItSignsInTo(t *testing.T) {
	w := newWorld(t)
	// A success of the attacker's own account in between clears nothing.
	w.account("mallory", 100)
	refused := 0
	for i := range 20 {
		a := w.attempt(fmt.Sprintf("victim%d", i))
		a.remote = fmt.Sprintf("2001:db8:6:6::%d", i)
		_, err := w.login(t, a)
		if fault.CodeOf(err) == fault.Throttled {
			refused++
		}
		own := w.attempt("mallory")
		own.remote = a.remote
		own.device.Name = fmt.Sprint(i)
		_, _ = w.login(t, own)
	}
	if refused != 12 {
		t.Errorf("%d of 20 were refused, want 20-8", refused)
	}
}

func TestARestartDoesNotForgiveGuesses(t *testing.T) {
	w := newWorld(t)
	stop := w.run(t)
	for range 4 {
		a := w.attempt("alice")
		a.password = "wrong password"
		_, err := w.login(t, a)
		wantFault(t, "guess", err, fault.Unauthenticated, "invalid_credentials")
	}
	stop() // writes the journal; a crash forgets at most a second
	w.restart(t)
	_, err := w.login(t, w.attempt("alice"))
	wantFault(t, "after a restart", err, fault.Throttled, "throttled")
}

func TestAPasswordChangedDuringTheSignInWins(t *testing.T) {
	w := newWorld(t)
	w.onVerify = func() {
		if _, err := w.auth.RevokeUser(t.Context(), &authapi.UserRef{User: "usr_alice"}); err != nil {
			t.Error(err)
		}
	}
	_, err := w.login(t, w.attempt("alice"))
	wantFault(t, "sign-in with the old password", err, fault.Unavailable, "changed")
	w.onVerify = nil
	if _, err := w.login(t, w.attempt("alice")); err != nil {
		t.Error(err)
	}
}

func TestNoSecretIsLogged(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	a := w.attempt("alice")
	a.password = "wrong secret"
	_, _ = w.login(t, a)
	a = w.attempt("my password as a login")
	_, _ = w.login(t, a)
	next, err := w.reauth(t, tokens.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.reauth(t, tokens.RefreshToken)
	if !errors.Is(err, fault.Unauthenticated) {
		t.Fatal(err)
	}
	text := w.log.String() + fmt.Sprint(w.seen)
	for _, s := range []string{
		"password of alice", "wrong secret", "my password as a login", "hash:", tokens.RefreshToken, next.RefreshToken, tokens.AccessToken, next.AccessToken,
	} {
		if strings.Contains(text, s) {
			t.Errorf("%q is in the log or an event", s)
		}
	}
	if !strings.Contains(text, "token_reuse") {
		t.Error("the log is empty: this test shows nothing")
	}
}
