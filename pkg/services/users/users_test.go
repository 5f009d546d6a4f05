package users_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/users"
	"vpnd/pkg/store"
)

// siblings records what it was asked, and can be down.
type siblings struct {
	mu    sync.Mutex
	down  error
	calls []string
	block chan struct{} // closed to let calls go on
}

func (s *siblings) note(ctx context.Context, call string) error {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	down, block := s.down, s.block
	s.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return down
}

func (s *siblings) CloseSessions(ctx context.Context, u id.User, r sessions.Reason, forget bool) error {
	return s.note(ctx, fmt.Sprintf("close %s %s %v", u, r, forget))
}
func (s *siblings) RevokeUser(ctx context.Context, u id.User) error {
	return s.note(ctx, "revoke "+string(u))
}
func (s *siblings) ForgetUser(ctx context.Context, u id.User) error {
	return s.note(ctx, "forget "+string(u))
}

func (s *siblings) setDown(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
}

func (s *siblings) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

type world struct {
	path string
	sib  *siblings
	mu   sync.Mutex
	seen []events.Event

	db    *store.DB // of the latest process
	close func()    // ends it
}

func (w *world) tasksLeft(t *testing.T) (n int) {
	t.Helper()
	if err := w.db.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow(`SELECT count(*) FROM tasks`).Scan(&n)
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func newWorld(t *testing.T) *world {
	return &world{path: filepath.Join(t.TempDir(), "users.db"), sib: &siblings{}}
}

func (w *world) events() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, e := range w.seen {
		out = append(out, strings.TrimSpace(e.Type+" "+e.User))
	}
	w.seen = nil
	return out
}

// open starts a process on the database; stop ends it, which for unfinished
// tasks is what a crash is.
func (w *world) open(t *testing.T) (u *users.Users, stop func()) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: w.path, Migrations: users.Migrations()})
	if err != nil {
		t.Fatal(err)
	}
	u, err = users.New(users.Deps{
		DB: db, Siblings: w.sib,
		Hash: func(_ context.Context, p string) (string, error) { return "hash of " + p, nil },
		Publish: func(e events.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen = append(w.seen, e)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = db.Close() })
	t.Cleanup(stop)
	w.db, w.close = db, stop
	return u, stop
}

func create(t *testing.T, u *users.Users, name, email string) *usersapi.User {
	t.Helper()
	got, err := tryCreate(t, u, name, email)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tryCreate(t *testing.T, u *users.Users, name, email string) (*usersapi.User, error) {
	t.Helper()
	req := &usersapi.CreateRequest{}
	req.Body.Username, req.Body.Email, req.Body.Password = name, email, "password of "+name
	return u.Create(t.Context(), req)
}

func ref(s string) *usersapi.Ref { return &usersapi.Ref{User: s} }

func wantFault(t *testing.T, what string, err error, code fault.Code, reason string) {
	t.Helper()
	if fault.CodeOf(err) != code || fault.ReasonOf(err) != reason {
		t.Errorf("%s: got %v (%s, %q), want %s, %q", what, err, fault.CodeOf(err), fault.ReasonOf(err), code, reason)
	}
}

func TestAccountsSurviveARestart(t *testing.T) {
	w := newWorld(t)
	u, stop := w.open(t)
	alice := create(t, u, "alice", "Alice@Example.org")
	if alice.DeviceLimit != 5 || alice.Status != usersapi.Active {
		t.Errorf("created %+v", alice)
	}
	stop()
	u, _ = w.open(t)
	got, err := u.Get(t.Context(), ref("alice"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(alice, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"user.created alice"}, w.events()); diff != "" {
		t.Error(diff)
	}
	acc, err := u.Standing(t.Context(), ref(string(alice.ID)))
	if err != nil || *acc != (usersapi.Account{ID: alice.ID, Username: "alice", Email: "Alice@Example.org", Status: usersapi.Active, DeviceLimit: 5}) {
		t.Errorf("standing %+v, %v", acc, err)
	}
}

func TestNamesAndAddressesAreUniqueWhateverTheirCase(t *testing.T) {
	u, _ := newWorld(t).open(t)
	create(t, u, "alice", "alice@example.org")
	create(t, u, "nobody", "")
	create(t, u, "noone", "") // no address is not a shared address
	_, err := tryCreate(t, u, "alice", "")
	wantFault(t, "same name", err, fault.Exists, "username_taken")
	_, err = tryCreate(t, u, "alice2", "ALICE@example.ORG")
	wantFault(t, "same address", err, fault.Exists, "email_taken")
	bob := create(t, u, "bob", "bob@example.org")
	set := &usersapi.SetRequest{Ref: *ref("bob")}
	set.Body.Username = new("alice")
	_, err = u.Set(t.Context(), set)
	wantFault(t, "rename to a taken name", err, fault.Exists, "username_taken")
	set.Body.Username, set.Body.Email = nil, new("Alice@example.org")
	_, err = u.Set(t.Context(), set)
	wantFault(t, "taken address", err, fault.Exists, "email_taken")
	if got, err := u.Get(t.Context(), ref("bob")); err != nil || !cmp.Equal(got, bob) {
		t.Errorf("refused changes left %+v, %v", got, err)
	}
}

func TestConcurrentCreatesOfOneNameGiveOneAccount(t *testing.T) {
	u, _ := newWorld(t).open(t)
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() { _, errs[i] = tryCreate(t, u, "alice", "a@example.org") })
	}
	wg.Wait()
	ok := 0
	for _, err := range errs {
		if err == nil {
			ok++
		} else if !errors.Is(err, fault.Exists) {
			t.Error(err)
		}
	}
	if ok != 1 {
		t.Errorf("%d creates succeeded", ok)
	}
}

func TestAddressesAreChecked(t *testing.T) {
	u, _ := newWorld(t).open(t)
	for _, bad := range []string{
		"a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "a@b\x00", "a@b\u202e", "a\u00a0@b", "\xff@b",
		strings.Repeat("a", 250) + "@b.org",
	} {
		_, err := tryCreate(t, u, "alice", bad)
		wantFault(t, fmt.Sprintf("%q", bad), err, fault.Invalid, "")
	}
	for i, good := range []string{"a@b", "ä@münchen.de", "first.last+tag@example.org"} {
		create(t, u, fmt.Sprintf("u%d", i), good)
	}
	_, err := tryCreate(t, u, "usr_abc", "")
	wantFault(t, "name like an id", err, fault.Invalid, "")
}

func FuzzEmail(f *testing.F) {
	f.Add("a@b")
	f.Add("a@b@c\x00")
	path := filepath.Join(f.TempDir(), "users.db")
	db, err := store.Open(f.Context(), store.Options{Path: path, Migrations: users.Migrations()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	u, err := users.New(users.Deps{DB: db, Siblings: &siblings{}, Hash: func(context.Context, string) (string, error) { return "", nil }})
	if err != nil {
		f.Fatal(err)
	}
	req := &usersapi.CreateRequest{}
	req.Body.Username = "alice"
	if _, err := u.Create(f.Context(), req); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, email string) {
		set := &usersapi.SetRequest{Ref: *ref("alice")}
		set.Body.Email = &email
		got, err := u.Set(t.Context(), set)
		if err != nil {
			wantFault(t, email, err, fault.Invalid, "")
			return
		}
		if got.Email != email || email != "" && strings.Count(email, "@") != 1 || strings.ContainsAny(email, "\r\n\t \x00") {
			t.Errorf("accepted %q as %q", email, got.Email)
		}
	})
}

func TestNamingAnAccount(t *testing.T) {
	u, _ := newWorld(t).open(t)
	var all []*usersapi.User
	for i := range 40 { // two ids with a common first letter are certain
		all = append(all, create(t, u, fmt.Sprintf("user%02d", i), ""))
	}
	for _, want := range all {
		for _, r := range []string{want.Username, string(want.ID), string(want.ID)[:16]} {
			got, err := u.Get(t.Context(), ref(r))
			if err != nil || got.ID != want.ID {
				t.Errorf("%s: got %+v, %v", r, got, err)
			}
		}
	}
	_, err := u.Get(t.Context(), ref("nobody"))
	wantFault(t, "unknown", err, fault.NotFound, "")
	if h := fault.From(err).Hint; !strings.Contains(h, "vpnctl user list") {
		t.Errorf("hint %q", h)
	}
	_, err = u.Get(t.Context(), ref(string(all[0].ID)[:5]))
	wantFault(t, "too short a prefix", err, fault.NotFound, "")
}

func TestAnAmbiguousPrefixNamesTheCandidates(t *testing.T) {
	u, _ := newWorld(t).open(t)
	seen := map[string]string{}
	for i := range 2000 { // ids begin with one of 1024 pairs: two share one
		c := create(t, u, fmt.Sprintf("user%d", i), "")
		p := string(c.ID)[:6]
		other, ok := seen[p]
		if !ok {
			seen[p] = c.Username
			continue
		}
		_, err := u.Get(t.Context(), ref(p))
		wantFault(t, p, err, fault.Conflict, "ambiguous")
		for _, name := range []string{other, c.Username, string(c.ID)} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%v does not name %s", err, name)
			}
		}
		return
	}
	t.Fatal("no two ids began alike")
}

func TestSetChangesOnlyWhatIsGiven(t *testing.T) {
	w := newWorld(t)
	u, _ := w.open(t)
	before := create(t, u, "alice", "alice@example.org")
	w.events()
	set := &usersapi.SetRequest{Ref: *ref("alice")}
	same, err := u.Set(t.Context(), set)
	if err != nil || !cmp.Equal(before, same) {
		t.Errorf("nothing given: %+v, %v", same, err)
	}
	set.Body.DeviceLimit = new(2)
	got, err := u.Set(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	want := *before
	want.DeviceLimit, want.UpdatedAt = 2, got.UpdatedAt
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
	set.Body.DeviceLimit, set.Body.Username, set.Body.Email = nil, new("carol"), new("")
	if got, err = u.Set(t.Context(), set); err != nil || got.Username != "carol" || got.Email != "" || got.DeviceLimit != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if diff := cmp.Diff([]string{"user.changed alice", "user.changed carol"}, w.events()); diff != "" {
		t.Error(diff)
	}
	if _, err := u.Standing(t.Context(), ref("alice")); !errors.Is(err, fault.NotFound) {
		t.Errorf("the old name still answers: %v", err)
	}
	if acc, err := u.Standing(t.Context(), ref("carol")); err != nil || acc.DeviceLimit != 2 {
		t.Errorf("standing %+v, %v", acc, err)
	}
	create(t, u, "alice", "alice@example.org")
}

func TestListPagesFiltersAndCounts(t *testing.T) {
	u, _ := newWorld(t).open(t)
	for _, n := range []string{"dora", "alice", "carl", "bob", "al_x"} {
		create(t, u, n, n+"@Example.org")
	}
	if _, err := u.Suspend(t.Context(), ref("bob")); err != nil {
		t.Fatal(err)
	}
	var got []string
	req := &usersapi.ListRequest{Limit: 2}
	for {
		page, err := u.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if page.Total != 5 {
			t.Errorf("total %d", page.Total)
		}
		for _, i := range page.Items {
			got = append(got, i.Username)
		}
		if page.Next == "" {
			break
		}
		req.After = page.Next
	}
	if diff := cmp.Diff([]string{"al_x", "alice", "bob", "carl", "dora"}, got); diff != "" {
		t.Error(diff)
	}
	for name, tc := range map[string]struct {
		req  usersapi.ListRequest
		want []string
	}{
		"status":     {usersapi.ListRequest{Status: "suspended"}, []string{"bob"}},
		"name":       {usersapi.ListRequest{Search: "AL"}, []string{"al_x", "alice"}},
		"wildcard":   {usersapi.ListRequest{Search: "_"}, []string{"al_x"}},
		"percent":    {usersapi.ListRequest{Search: "%"}, nil},
		"e-mail":     {usersapi.ListRequest{Search: "carl@ex"}, []string{"carl"}},
		"everything": {usersapi.ListRequest{Search: "example.org", Status: "active"}, []string{"al_x", "alice", "carl", "dora"}},
	} {
		page, err := u.List(t.Context(), &tc.req)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range page.Items {
			got = append(got, i.Username)
		}
		if !slices.Equal(got, tc.want) || page.Total != len(tc.want) || page.Next != "" {
			t.Errorf("%s: got %v of %d, next %q", name, got, page.Total, page.Next)
		}
	}
	_, err := u.List(t.Context(), &usersapi.ListRequest{After: "!"})
	wantFault(t, "bad cursor", err, fault.Invalid, "")
}

func TestLookupFindsByNameAndAddress(t *testing.T) {
	u, _ := newWorld(t).open(t)
	alice := create(t, u, "alice", "Alice@example.org")
	for _, login := range []string{"alice", "ALICE", "alice@example.org", "ALICE@EXAMPLE.ORG"} {
		req := &usersapi.LookupRequest{}
		req.Body.Login = login
		got, err := u.Lookup(t.Context(), req)
		if err != nil || got.ID != alice.ID || got.PasswordHash != "hash of password of alice" {
			t.Errorf("%s: got %v", login, err)
		}
	}
	for _, login := range []string{"", "bob", string(alice.ID), "@", "alice@"} {
		req := &usersapi.LookupRequest{}
		req.Body.Login = login
		if _, err := u.Lookup(t.Context(), req); !errors.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", login, err)
		}
	}
}

func TestUsageIsAppliedOnce(t *testing.T) {
	w := newWorld(t)
	u, stop := w.open(t)
	alice := create(t, u, "alice", "")
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	report := func(u *users.Users, seq int64, usage ...usersapi.Usage) {
		t.Helper()
		req := &usersapi.UsageRequest{}
		req.Body.Seq, req.Body.Usage = seq, usage
		if _, err := u.AddUsage(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	one := usersapi.Usage{User: alice.ID, RxBytes: 10, TxBytes: 20, Sessions: 1, SeenAt: at}
	report(u, 1, one, usersapi.Usage{User: "usr_gone", RxBytes: 1})
	report(u, 1, one)
	stop()
	u, _ = w.open(t)
	report(u, 1, one)
	one.SeenAt = at.Add(-time.Hour)
	report(u, 2, one)
	got, err := u.Get(t.Context(), ref("alice"))
	if err != nil {
		t.Fatal(err)
	}
	if got.RxBytes != 20 || got.TxBytes != 40 || got.Sessions != 2 || !got.LastSeenAt.Equal(at) || got.LastLoginAt != nil {
		t.Errorf("got %+v", got)
	}
	seen := &usersapi.SeenRequest{Ref: *ref(string(alice.ID))}
	seen.Body.LoginAt = at.Add(time.Hour)
	if _, err := u.Seen(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	got, err = u.Get(t.Context(), ref("alice"))
	if err != nil || !got.LastLoginAt.Equal(at.Add(time.Hour)) || !got.LastSeenAt.Equal(at.Add(time.Hour)) {
		t.Errorf("got %+v, %v", got, err)
	}
}
