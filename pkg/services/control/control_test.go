//go:build linux

package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

var (
	stranger = account{uid: 54321, gid: 54321}
	viewer   = account{uid: 54322, gid: 54322, groups: []uint32{viewGID}}
	admin    = account{uid: 54323, gid: 54323, groups: []uint32{adminGID}}
	primary  = account{uid: 54324, gid: adminGID}
)

func TestKernelSaysWhoMayDoWhat(t *testing.T) {
	w := newWorld(t)
	look, change := "GET /v1/users", "POST /v1/users/alice/suspend"
	for _, tc := range []struct {
		name         string
		who          account
		look, change int
	}{
		{"root", account{}, 200, 200},
		{"member of the admin group", admin, 200, 200},
		{"admin group as primary group", primary, 200, 200},
		{"member of the view group", viewer, 200, 403},
		{"nobody in particular", stranger, 403, 403},
		{"gid of another group", account{uid: 54325, gid: 54325, groups: []uint32{3}}, 403, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := w.callAs(tc.who, look, change)
			if got[0].Status != tc.look || got[1].Status != tc.change {
				t.Errorf("look %d, change %d; want %d, %d\n%s", got[0].Status, got[1].Status, tc.look, tc.change, got[1].Body)
			}
		})
	}
	var p fault.Problem
	if err := json.Unmarshal([]byte(w.callAs(stranger, look)[0].Body), &p); err != nil || p.Code != fault.Denied ||
		!strings.Contains(p.Hint, adminGroup) || !strings.Contains(p.Hint, viewGroup) {
		t.Errorf("refusal %+v (%v): want denied with both groups in the hint", p, err)
	}
	list, err := api.Audit.Call(t.Context(), w.conn(), &api.AuditRequest{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	whos := map[string]bool{}
	for _, e := range list.Items {
		whos[e.Who] = true
	}
	if !whos["root"] || !whos["uid 54323"] {
		t.Errorf("audited callers %v: want root and uid 54323", whos)
	}
}

// declared reads the operations of pkg/api from its source: a new one cannot
// be forgotten.
func declared(t *testing.T) map[string]rpc.Info {
	t.Helper()
	op := regexp.MustCompile(`(?s)\bID: "([^"]+)", Method: "([A-Z]+)", Path: "([^"]+)", Access: rpc\.(\w+)`)
	out := map[string]rpc.Info{}
	err := filepath.WalkDir("../../api", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found := op.FindAllSubmatch(src, -1)
		if n := bytes.Count(src, []byte("rpc.Info{")); n != len(found) {
			t.Errorf("%s: %d of %d declarations understood", path, len(found), n)
		}
		for _, m := range found {
			i := rpc.Info{ID: string(m[1]), Method: string(m[2]), Path: string(m[3]), Access: rpc.Access(strings.ToLower(string(m[4])))}
			out[i.ID+" "+i.Path] = i // the client API has names of its own
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 40 {
		t.Fatalf("%d operations found in pkg/api", len(out))
	}
	return out
}

func TestEveryOperationForPeopleIsOfferedAndNoOther(t *testing.T) {
	w := newWorld(t)
	status, data, err := raw(w.socket, "GET", "/openapi.json", "")
	if err != nil || status != 200 {
		t.Fatalf("openapi: %d %v", status, err)
	}
	var doc struct {
		OpenAPI string `json:"openapi"`
		Info    struct{ Title string }
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Info.Title != "vpnd" || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("title %q, openapi %q", doc.Info.Title, doc.OpenAPI)
	}
	described := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described[op.OperationID+" "+strings.ToUpper(method)+" "+path] = true
		}
	}
	ops := declared(t)
	people := map[string]bool{} // method and path; a sibling's operation may share them on another socket
	for _, op := range ops {
		if op.Access == rpc.View || op.Access == rpc.Admin {
			people[op.Method+" "+op.Path] = true
		}
	}
	for _, op := range ops {
		key := op.ID + " " + op.Method + " " + op.Path
		forPeople := op.Access == rpc.View || op.Access == rpc.Admin
		if forPeople != described[key] {
			t.Errorf("%s (%s): described %v", key, op.Access, described[key])
		}
		if !forPeople && people[op.Method+" "+op.Path] {
			continue
		}
		status, body, err := raw(w.socket, op.Method, fill(op.Path), bodyFor(op))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if refused := status == 404 || status == 405 || status == 403; refused == forPeople {
			t.Errorf("%s (%s) answered %d to root: %.200s", key, op.Access, status, body)
		}
	}
}

func fill(path string) string { return regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x") }

func bodyFor(op rpc.Info) string {
	if op.Method == "POST" || op.Method == "PUT" || op.Method == "PATCH" {
		return "{}"
	}
	return ""
}

func TestEveryPathNeedsAccess(t *testing.T) {
	w := newWorld(t)
	calls := []string{"GET /openapi.json", "GET /", "GET /docs", "GET /no/such/path"}
	for _, op := range declared(t) {
		calls = append(calls, strings.TrimSpace(op.Method+" "+fill(op.Path)+" "+bodyFor(op)))
	}
	for i, r := range w.callAs(stranger, calls...) {
		if r.Status != 403 {
			t.Errorf("%s answered %d to a stranger: %.200s", calls[i], r.Status, r.Body)
		}
	}
	for i, r := range w.callAs(viewer, calls...) {
		op := calls[i]
		if !strings.HasPrefix(op, "GET ") && r.Status != 403 && r.Status != 404 && r.Status != 405 {
			t.Errorf("%s answered %d to somebody who may only look: %.200s", op, r.Status, r.Body)
		}
	}
}

func audit(t *testing.T, w *world, req *api.AuditRequest) []api.AuditEntry {
	t.Helper()
	req.Limit = 1000
	list, err := api.Audit.Call(t.Context(), w.conn(), req)
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestChangesAreWrittenDownBeforeAndAfter(t *testing.T) {
	w := newWorld(t)
	hold := make(chan struct{})
	w.fake.mu.Lock()
	w.fake.deleting = hold
	w.fake.mu.Unlock()

	result := make(chan error, 1)
	go func() {
		_, err := users.Delete.Call(rpc.WithRequestID(context.Background(), "req-1"), w.conn(), &users.Ref{User: "alice"})
		result <- err
	}()
	eventually(t, "a pending entry", func() bool {
		l := audit(t, w, &api.AuditRequest{})
		return len(l) == 1 && l[0].Result == "pending"
	})
	close(hold)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	e := audit(t, w, &api.AuditRequest{})[0]
	if e.Op != "user.delete" || e.Target != "alice" || e.Result != "ok" || e.Who != "root" || e.UID != 0 ||
		e.PID != int32(os.Getpid()) || e.RequestID != "req-1" || !strings.Contains(e.From, "control.test") {
		t.Errorf("entry %+v", e)
	}

	create := &users.CreateRequest{}
	create.Body.Username, create.Body.Password = "taken", "correct horse battery"
	if _, err := users.Create.Call(t.Context(), w.conn(), create); !errors.Is(err, fault.Exists) {
		t.Fatalf("got %v, want exists", err)
	}
	create.Body.Username = "bob"
	if _, err := users.Create.Call(t.Context(), w.conn(), create); err != nil {
		t.Fatal(err)
	}
	l := audit(t, w, &api.AuditRequest{Op: "user"})
	if len(l) != 3 || l[0].Target != "bob" || l[0].Result != "ok" || l[1].Result != "exists" || l[1].Message == "" {
		t.Errorf("trail %+v", l)
	}
	if got := audit(t, w, &api.AuditRequest{Op: "user.delete"}); len(got) != 1 {
		t.Errorf("filter by operation: %+v", got)
	}
	if got := audit(t, w, &api.AuditRequest{Op: "use"}); len(got) != 0 {
		t.Errorf("half a word matched: %+v", got)
	}
	if got := audit(t, w, &api.AuditRequest{Who: "alice"}); len(got) != 0 {
		t.Errorf("filter by who: %+v", got)
	}
	if got := audit(t, w, &api.AuditRequest{Since: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Errorf("filter by time: %+v", got)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "state", "audit.db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("correct horse")) {
			t.Errorf("%s holds a password", f)
		}
	}
}

func TestTrailIsPaged(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		if _, err := users.Suspend.Call(t.Context(), w.conn(), &users.Ref{User: fmt.Sprintf("u%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	req := &api.AuditRequest{Limit: 3}
	for {
		l, err := api.Audit.Call(t.Context(), w.conn(), req)
		if err != nil {
			t.Fatal(err)
		}
		if l.Total != 7 {
			t.Errorf("total %d", l.Total)
		}
		for _, e := range l.Items {
			got = append(got, e.Target)
		}
		if req.After = l.Next; l.Next == "" {
			break
		}
	}
	if want := "u6 u5 u4 u3 u2 u1 u0"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if _, err := api.Audit.Call(t.Context(), w.conn(), &api.AuditRequest{Limit: 1, After: "x"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("bad cursor: %v", err)
	}
}

func TestChangeOutlivesTheCaller(t *testing.T) {
	w := newWorld(t)
	hold := make(chan struct{})
	w.fake.mu.Lock()
	w.fake.deleting = hold
	w.fake.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := users.Delete.Call(ctx, w.conn(), &users.Ref{User: "alice"})
		result <- err
	}()
	eventually(t, "a pending entry", func() bool { return len(audit(t, w, &api.AuditRequest{})) == 1 })
	cancel()
	<-result
	close(hold)
	eventually(t, "the true result", func() bool { return audit(t, w, &api.AuditRequest{})[0].Result == "ok" })
}

func TestCrashLeavesUnknownNotNothing(t *testing.T) {
	w := newWorld(t)
	hold := make(chan struct{})
	defer close(hold)
	w.fake.mu.Lock()
	w.fake.deleting = hold
	w.fake.mu.Unlock()
	go func() { _, _ = users.Delete.Call(context.Background(), w.conn(), &users.Ref{User: "alice"}) }()
	eventually(t, "a pending entry", func() bool {
		l := audit(t, w, &api.AuditRequest{})
		return len(l) == 1 && l[0].Result == "pending"
	})
	w.kill(syscall.SIGKILL)
	w.fake.mu.Lock()
	w.fake.deleting = nil
	w.fake.mu.Unlock()
	w.start()
	l := audit(t, w, &api.AuditRequest{})
	if e := l[len(l)-1]; e.Result != "unknown" || e.Target != "alice" {
		t.Errorf("after the crash: %+v", e)
	}
}

func TestFullDiskRefusesChangesAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.kill(syscall.SIGTERM)
	state := filepath.Join(w.dir, "state")
	w.start("CONTROL_TEST_TMPFS=" + state)
	if _, err := users.Suspend.Call(t.Context(), w.conn(), &users.Ref{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf("/proc/%d/root%s/filler", w.cmd.Process.Pid, state)
	f, err := os.Create(inside)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	_ = f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	var refused error
	for range 50 { // SQLite may have some pages left
		if _, refused = users.Suspend.Call(t.Context(), w.conn(), &users.Ref{User: "alice"}); refused != nil {
			break
		}
	}
	if !errors.Is(refused, fault.Unavailable) || fault.ReasonOf(refused) != "audit" || fault.From(refused).Hint == "" {
		t.Fatalf("change on a full disk: %#v", refused)
	}
	if _, err := users.ListUsers.Call(t.Context(), w.conn(), &users.ListRequest{Limit: 1}); err != nil {
		t.Errorf("looking on a full disk: %v", err)
	}
	if err := os.Remove(inside); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes again", func() bool {
		_, err := users.Suspend.Call(t.Context(), w.conn(), &users.Ref{User: "alice"})
		return err == nil
	})
}

func TestStatusSaysWhatCannotBeAsked(t *testing.T) {
	w := newWorld(t)
	s, err := api.GetStatus.Call(t.Context(), w.conn(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Healthy || s.Users != 1 || s.Sessions == nil || s.Sessions.Online != 2 || s.Pin != "sha256/abc=" ||
		s.Endpoint != "vpn.example.org" || len(s.Services) != 1 || len(s.Lanes) != 1 {
		t.Errorf("status %+v", s)
	}
	w.fake.mu.Lock()
	w.fake.down["sessions"] = true
	w.fake.mu.Unlock()
	s, err = api.GetStatus.Call(t.Context(), w.conn(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Healthy || len(s.Problems) != 1 || !strings.Contains(s.Problems[0].What, "sessions") ||
		s.Problems[0].Hint != "vpnctl service get sessions" || s.Users != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestRestartingItselfAnswersFirst(t *testing.T) {
	w := newWorld(t)
	got, err := supervisor.Restart.Call(t.Context(), w.conn(), &supervisor.Ref{Service: "control"})
	if err != nil || got.State != "stopping" {
		t.Fatalf("%+v, %v", got, err)
	}
	eventually(t, "the supervisor to be asked", func() bool {
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		return w.fake.restarts == 1
	})
}

// event makes a sibling's event.
func event(n int, kind, user string) events.Event {
	return events.Event{ID: idOf(n), Time: time.Now().UTC(), Seq: uint64(n), Service: "users", Type: kind, User: user}
}
