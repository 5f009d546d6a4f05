package users_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/users"
)

var errDown = fault.New(fault.Unavailable, "sessions is not reachable")

// background runs u.Run until the test ends or stop is called.
func background(t *testing.T, u *users.Users) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = u.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestSuspendReturnsAfterThePeersAreGone(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	alice := create(t, u, "alice", "")
	w.events()
	w.sib.block = make(chan struct{})
	done := make(chan error, 1)
	go func() {
		got, err := u.Suspend(t.Context(), ref("alice"))
		if err == nil && got.Status != usersapi.Suspended {
			err = errors.New("not suspended")
		}
		done <- err
	}()
	eventually(t, "sessions is asked", func() bool {
		w.sib.mu.Lock()
		defer w.sib.mu.Unlock()
		return len(w.sib.calls) > 0
	})
	// Already committed and in force while the peers are being removed.
	if acc, err := u.Standing(t.Context(), ref(string(alice.ID))); err != nil || acc.Status != usersapi.Suspended {
		t.Errorf("standing %+v, %v", acc, err)
	}
	select {
	case err := <-done:
		t.Fatalf("returned before the peers were gone: %v", err)
	default:
	}
	close(w.sib.block)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"close " + string(alice.ID) + " user_suspended false"}, w.sib.taken()); diff != "" {
		t.Error(diff)
	}

	// Again makes sure, and activating is idempotent too.
	first, err := u.Get(t.Context(), ref("alice"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := u.Suspend(t.Context(), ref("alice"))
	if err != nil || !again.StatusSince.Equal(first.StatusSince) || len(w.sib.taken()) != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
	for range 2 {
		if got, err := u.Activate(t.Context(), ref("alice")); err != nil || got.Status != usersapi.Active {
			t.Errorf("activate: %+v, %v", got, err)
		}
	}
	if diff := cmp.Diff([]string{"user.suspended alice", "user.activated alice"}, w.events()); diff != "" {
		t.Error(diff)
	}
	if calls := w.sib.taken(); len(calls) != 0 {
		t.Errorf("activate asked %v", calls)
	}
}

func TestSuspendWithoutSessionsIsInForceAndRetried(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	alice := create(t, u, "alice", "")
	background(t, u)
	w.sib.setDown(errDown)
	_, err := u.Suspend(t.Context(), ref("alice"))
	wantFault(t, "sessions down", err, fault.Unavailable, "pending")
	w.sib.setDown(context.DeadlineExceeded)
	_, err = u.Suspend(t.Context(), ref("alice"))
	wantFault(t, "sessions slow", err, fault.Timeout, "pending")
	if acc, _ := u.Standing(t.Context(), ref("alice")); acc == nil || acc.Status != usersapi.Suspended {
		t.Errorf("standing %+v", acc)
	}
	w.sib.setDown(nil)
	w.sib.taken()
	eventually(t, "Run closes the sessions", func() bool {
		calls := w.sib.taken()
		return len(calls) > 0 && calls[0] == "close "+string(alice.ID)+" user_suspended false"
	})
}

// The process dies between the commit and the call to sessions.
func TestATaskLeftByACrashIsFinishedByTheNextProcess(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(context.Context, *users.Users) error
		want func(id string) []string
		then func(*testing.T, *users.Users)
	}{
		"suspend": {
			func(ctx context.Context, u *users.Users) error { _, err := u.Suspend(ctx, ref("alice")); return err },
			func(id string) []string { return []string{"close " + id + " user_suspended false"} },
			func(t *testing.T, u *users.Users) {
				if acc, err := u.Standing(t.Context(), ref("alice")); err != nil || acc.Status != usersapi.Suspended {
					t.Errorf("standing %+v, %v", acc, err)
				}
			},
		},
		"delete": {
			func(ctx context.Context, u *users.Users) error { _, err := u.Delete(ctx, ref("alice")); return err },
			func(id string) []string { return []string{"close " + id + " user_deleted true", "forget " + id} },
			func(t *testing.T, u *users.Users) {
				eventually(t, "the account is gone", func() bool {
					_, err := u.Get(t.Context(), ref("alice"))
					return errors.Is(err, fault.NotFound)
				})
				create(t, u, "alice", "alice@example.org")
			},
		},
		"password": {
			func(ctx context.Context, u *users.Users) error {
				req := &usersapi.PasswordRequest{Ref: *ref("alice")}
				req.Body.Password = "another password"
				_, err := u.SetPassword(ctx, req)
				return err
			},
			func(id string) []string { return []string{"revoke " + id} },
			func(t *testing.T, u *users.Users) {
				req := &usersapi.LookupRequest{}
				req.Body.Login = "alice"
				if got, err := u.Lookup(t.Context(), req); err != nil || got.PasswordHash != "hash of another password" {
					t.Errorf("lookup: %v", err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			u, stop := w.open(t)
			alice := create(t, u, "alice", "alice@example.org")
			w.sib.setDown(errDown)
			wantFault(t, "call", tc.do(t.Context(), u), fault.Unavailable, "pending")
			stop()
			w.sib.taken()
			w.sib.setDown(nil)
			u, _ = w.open(t)
			background(t, u)
			var calls []string
			want := tc.want(string(alice.ID))
			eventually(t, "siblings are told", func() bool {
				calls = append(calls, w.sib.taken()...)
				return len(calls) >= len(want)
			})
			if diff := cmp.Diff(want, calls); diff != "" {
				t.Error(diff)
			}
			tc.then(t, u)
			eventually(t, "nothing is left to do", func() bool { return w.tasksLeft(t) == 0 })
		})
	}
}

func TestDeleteRemovesEverythingAndFreesTheName(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	alice := create(t, u, "alice", "alice@example.org")
	w.events()
	if _, err := u.Delete(t.Context(), ref("alice")); err != nil {
		t.Fatal(err)
	}
	want := []string{"close " + string(alice.ID) + " user_deleted true", "forget " + string(alice.ID)}
	if diff := cmp.Diff(want, w.sib.taken()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"user.deleted alice"}, w.events()); diff != "" {
		t.Error(diff)
	}
	for _, r := range []string{"alice", string(alice.ID)} {
		_, err := u.Get(t.Context(), ref(r))
		wantFault(t, r, err, fault.NotFound, "")
		_, err = u.Standing(t.Context(), ref(r))
		wantFault(t, r, err, fault.NotFound, "")
	}
	again := create(t, u, "alice", "alice@example.org")
	if again.ID == alice.ID {
		t.Error("the id was used again")
	}
}

func TestAnAccountBeingDeletedRefusesChanges(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	alice := create(t, u, "alice", "alice@example.org")
	w.sib.setDown(errDown)
	_, err := u.Delete(t.Context(), ref("alice"))
	wantFault(t, "delete", err, fault.Unavailable, "pending")
	if acc, err := u.Standing(t.Context(), ref(string(alice.ID))); err != nil || acc.Status != usersapi.Deleting {
		t.Errorf("standing %+v, %v", acc, err)
	}
	_, err = u.Suspend(t.Context(), ref("alice"))
	wantFault(t, "suspend", err, fault.Conflict, "deleting")
	_, err = u.Activate(t.Context(), ref("alice"))
	wantFault(t, "activate", err, fault.Conflict, "deleting")
	_, err = tryCreate(t, u, "alice", "")
	wantFault(t, "create", err, fault.Conflict, "deleting")
	w.sib.setDown(nil)
	if _, err := u.Delete(t.Context(), ref("alice")); err != nil {
		t.Errorf("deleting again: %v", err)
	}
	create(t, u, "alice", "")
}

func TestActivatingTakesBackAnUnfinishedSuspension(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	create(t, u, "alice", "")
	w.sib.setDown(errDown)
	_, err := u.Suspend(t.Context(), ref("alice"))
	wantFault(t, "suspend", err, fault.Unavailable, "pending")
	if _, err := u.Activate(t.Context(), ref("alice")); err != nil {
		t.Fatal(err)
	}
	if n := w.tasksLeft(t); n != 0 {
		t.Errorf("%d tasks are left: an active user's sessions would be closed", n)
	}
}
