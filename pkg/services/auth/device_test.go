package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/fault"
)

func decodeToken(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimPrefix(s, "vpr_"))
}

func TestDeletingADeviceReturnsAfterItsPeerIsGone(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.takeEvents()
	w.set(func() { w.block = make(chan struct{}) })
	done := make(chan error, 1)
	go func() {
		_, err := w.auth.DeviceDelete(t.Context(), &authapi.DeviceRef{Device: "alice/laptop"})
		done <- err
	}()
	eventually(t, "sessions is asked", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.closes) > 0 })
	wantFault(t, "in force at once", w.check(t, "usr_alice", tokens.DeviceID), fault.Unauthenticated, "device_deleted")
	_, err := w.reauth(t, tokens.RefreshToken)
	wantFault(t, "renewal", err, fault.Unauthenticated, "device_deleted")
	a := w.attempt("alice")
	a.device.ID = tokens.DeviceID
	_, err = w.login(t, a)
	wantFault(t, "signing in with it", err, fault.Invalid, "unknown_device")
	again := w.signedIn(t, "alice", "laptop") // the name is still held
	select {
	case err := <-done:
		t.Fatalf("returned before the peer was gone: %v", err)
	default:
	}
	close(w.block)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{string(tokens.DeviceID) + " device_deleted true"}, w.takeCloses()); diff != "" {
		t.Error(diff)
	}
	if !contains(w.takeEvents(), "device.deleted alice laptop") {
		t.Error("no event")
	}
	_, err = w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: string(tokens.DeviceID)})
	wantFault(t, "get", err, fault.NotFound, "")
	if h := fault.From(err).Hint; !strings.Contains(h, "vpnctl device list") {
		t.Errorf("hint %q", h)
	}
	if err := w.check(t, "usr_alice", again.DeviceID); err != nil {
		t.Errorf("the other device suffered: %v", err)
	}
	_, err = w.reauth(t, tokens.RefreshToken)
	wantFault(t, "renewal", err, fault.Unauthenticated, "invalid_token")
}

func TestADeletionLeftByACrashIsFinished(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "laptop")
	w.set(func() { w.down = errDown })
	_, err := w.auth.DeviceDelete(t.Context(), &authapi.DeviceRef{Device: string(tokens.DeviceID)})
	wantFault(t, "sessions down", err, fault.Unavailable, "pending")
	w.restart(t)
	wantFault(t, "still locked out", w.check(t, "usr_alice", tokens.DeviceID), fault.Unauthenticated, "device_deleted")
	w.takeCloses()
	w.set(func() { w.down = nil })
	w.run(t)
	eventually(t, "the session is closed", func() bool { return contains(w.takeCloses(), string(tokens.DeviceID)+" device_deleted true") })
	eventually(t, "the device is gone", func() bool {
		_, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: string(tokens.DeviceID)})
		return errors.Is(err, fault.NotFound)
	})
	eventually(t, "nothing is left", func() bool { return w.tasksLeft(t) == 0 })
}

func TestForgettingAUserLeavesNothing(t *testing.T) {
	w := newWorld(t)
	one := w.signedIn(t, "alice", "one")
	w.signedIn(t, "alice", "two")
	bobs := w.signedIn(t, "bob", "one")
	for range 2 {
		if _, err := w.auth.ForgetUser(t.Context(), &authapi.UserRef{User: "usr_alice"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.reauth(t, one.RefreshToken)
	wantFault(t, "renewal", err, fault.Unauthenticated, "invalid_token")
	for range 2 {
		list, err := w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{})
		if err != nil || list.Total != 1 || len(list.Items) != 1 || list.Items[0].ID != bobs.DeviceID {
			t.Errorf("left: %+v, %v", list, err)
		}
		wantFault(t, "connect", w.check(t, "usr_alice", one.DeviceID), fault.Unauthenticated, "device_deleted")
		w.restart(t)
	}
}

func TestNamingADevice(t *testing.T) {
	w := newWorld(t)
	tokens := w.signedIn(t, "alice", "my laptop/2")
	for _, ref := range []string{"alice/my laptop/2", string(tokens.DeviceID), string(tokens.DeviceID)[:12], "usr_alice/my laptop/2"} {
		got, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: ref})
		if err != nil || got.ID != tokens.DeviceID {
			t.Errorf("%s: got %+v, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"my laptop", "alice/phone", "nobody/laptop", "dev_", "dev_a", "alice", "/", "alice/"} {
		_, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: ref})
		if !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestListPagesAndFollowsRenames(t *testing.T) {
	w := newWorld(t)
	w.account("carol", 9)
	for i := range 3 {
		w.signedIn(t, "carol", fmt.Sprintf("c%d", i))
	}
	w.signedIn(t, "alice", "b")
	w.signedIn(t, "alice", "a")
	w.signedIn(t, "bob", "a")
	var got []string
	req := &authapi.DeviceListRequest{Limit: 2}
	for {
		page, err := w.auth.DeviceList(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if page.Total != 6 {
			t.Errorf("total %d", page.Total)
		}
		for _, d := range page.Items {
			got = append(got, d.Username+"/"+d.Name)
		}
		if page.Next == "" {
			break
		}
		req.After = page.Next
	}
	if diff := cmp.Diff([]string{"alice/a", "alice/b", "bob/a", "carol/c0", "carol/c1", "carol/c2"}, got); diff != "" {
		t.Error(diff)
	}
	w.set(func() { w.accounts["carol"].Username = "caroline" })
	list, err := w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{User: "caroline"})
	if err != nil || list.Total != 3 || list.Items[0].Username != "caroline" {
		t.Errorf("got %+v, %v", list, err)
	}
	d, err := w.auth.DeviceGet(t.Context(), &authapi.DeviceRef{Device: "caroline/c1"})
	if err != nil || d.Username != "caroline" {
		t.Errorf("got %+v, %v", d, err)
	}
	_, err = w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{User: "nobody"})
	wantFault(t, "unknown user", err, fault.NotFound, "")
	for _, bad := range []string{"!", "YQ", "////"} {
		_, err = w.auth.DeviceList(t.Context(), &authapi.DeviceListRequest{After: bad})
		wantFault(t, "cursor "+bad, err, fault.Invalid, "")
	}
}
