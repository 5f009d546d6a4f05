//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Results of an entry that are no error code.
const (
	pending = "pending" // begun, not ended
	done    = "ok"
	unknown = "unknown" // control died before it learned the end
)

// trail is the audit trail: a row for every change before it is made.
type trail struct {
	db  *store.DB
	log *slog.Logger
	hub *hub

	// broken tells why the end of some change could not be written.
	broken atomic.Pointer[string]
}

func migrations() []store.Migration {
	return []store.Migration{{Name: "audit", SQL: `
		CREATE TABLE audit (
			seq        INTEGER PRIMARY KEY AUTOINCREMENT,
			time       INTEGER NOT NULL,
			who        TEXT NOT NULL,
			uid        INTEGER NOT NULL,
			pid        INTEGER NOT NULL,
			origin     TEXT NOT NULL,
			op         TEXT NOT NULL,
			target     TEXT NOT NULL,
			result     TEXT NOT NULL,
			message    TEXT NOT NULL,
			request_id TEXT NOT NULL,
			ended_at   INTEGER
		) STRICT;
		CREATE INDEX audit_pending ON audit(seq) WHERE result = 'pending';
		CREATE INDEX audit_who ON audit(who, seq);
		CREATE INDEX audit_op ON audit(op, seq);`}}
}

func openTrail(ctx context.Context, path string, log *slog.Logger, h *hub) (*trail, error) {
	db, err := store.Open(ctx, store.Options{Path: path, Migrations: migrations(), Log: log})
	if err != nil {
		return nil, err
	}
	t := &trail{db: db, log: log, hub: h}
	if err := t.settle(ctx); err != nil {
		// A full disk must not keep people from looking, nor from the
		// commands that make room.
		log.Error("audit.not_settled", "err", err)
	}
	return t, nil
}

func (t *trail) close() error { return t.db.Close() }

// settle ends what a crash left pending.
func (t *trail) settle(ctx context.Context) error {
	return t.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE audit SET result = ?, message = ? WHERE result = 'pending'",
			unknown, "control ended before this change did")
		return err
	})
}

type entryKey struct{}

// noteTarget names what a change concerned once it is known.
func noteTarget(ctx context.Context, target string) {
	if e, ok := ctx.Value(entryKey{}).(*api.AuditEntry); ok {
		e.Target = plain(target, maxTarget)
	}
}

// around writes a change down, makes it, and writes down how it ended, all
// before the caller is answered.
func (t *trail) around(ctx context.Context, op rpc.Info, req any, next func(context.Context) error) error {
	if !op.Changes() || op.Access != rpc.Admin || onlyLooks(req) {
		return next(ctx)
	}
	e := t.entry(ctx, op)
	e.Target = plain(target(req), maxTarget)
	if err := t.begin(ctx, &e); err != nil {
		return t.refuse(op, err)
	}
	// Once written down, a change is carried to its end although the caller
	// goes away: the trail says what happened, not that somebody stopped
	// listening.
	ctx = context.WithValue(context.WithoutCancel(ctx), entryKey{}, &e)
	err := fault.New(fault.Internal, "panic")
	defer func() { t.end(ctx, &e, err) }()
	if nextErr := next(ctx); nextErr != nil {
		err = fault.From(nextErr)
		return nextErr
	}
	err = nil
	return nil
}

// refused notes an attempt that the caller had no right to.
func (t *trail) refused(ctx context.Context, op rpc.Info, err error) {
	if !op.Changes() || op.Access != rpc.Admin {
		return
	}
	f := fault.From(err)
	e := t.entry(ctx, op)
	e.Result, e.Message = string(f.Code), plain(f.Message, maxMessage)
	if err := t.begin(ctx, &e); err != nil {
		t.log.Error("audit.not_written", "op", op.ID, "who", e.Who, "err", err, "request_id", e.RequestID)
	}
	t.announce(&e)
}

func (t *trail) entry(ctx context.Context, op rpc.Info) api.AuditEntry {
	c := rpc.CallerFrom(ctx)
	return api.AuditEntry{
		Time: time.Now().UTC(), Who: plain(c.Name, maxTarget), UID: c.UID, PID: c.PID, From: origin(c.PID, c.UID),
		Op: op.ID, Result: pending, RequestID: rpc.RequestID(ctx),
	}
}

func (t *trail) refuse(op rpc.Info, err error) error {
	if code := fault.CodeOf(err); code == fault.Canceled || code == fault.Timeout {
		return err
	}
	t.log.Error("audit.not_written", "op", op.ID, "err", err)
	hint := fault.From(err).Hint
	if hint == "" {
		hint = "the log of service control tells more"
	}
	return fault.Wrap(err, fault.Unavailable, "nothing was changed: the audit trail cannot be written").
		WithReason("audit").WithHint("%s", hint)
}

func (t *trail) begin(ctx context.Context, e *api.AuditEntry) error {
	return t.db.Write(ctx, func(tx *store.Tx) error {
		var ended *time.Time
		if e.Result != pending {
			ended = &e.Time
		}
		r, err := tx.Exec(`INSERT INTO audit (time, who, uid, pid, origin, op, target, result, message, request_id, ended_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			e.Time, e.Who, e.UID, e.PID, e.From, e.Op, e.Target, e.Result, e.Message, e.RequestID, ended)
		e.Seq = r.LastInsertID
		return err
	})
}

func (t *trail) end(ctx context.Context, e *api.AuditEntry, f *fault.Error) {
	e.Result = done
	if f != nil {
		e.Result, e.Message = string(f.Code), plain(f.Message, maxMessage)
		if f.Code == fault.Internal {
			e.Message = "internal error" // the text is for the log of the service
		}
	}
	err := t.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE audit SET result = ?, message = ?, target = ?, ended_at = ? WHERE seq = ?",
			e.Result, e.Message, e.Target, time.Now(), e.Seq)
		return err
	})
	if err != nil {
		// The change is made: saying it failed would be a lie. The entry
		// stays pending, and status shows why.
		why := plain(fault.From(err).Message, maxMessage)
		t.broken.Store(&why)
		t.log.Error("audit.not_completed", "seq", e.Seq, "op", e.Op, "result", e.Result, "err", err, "request_id", e.RequestID)
	} else {
		t.broken.Store(nil)
	}
	t.announce(e)
}

func (t *trail) announce(e *api.AuditEntry) {
	kind, level := "control.changed", slog.LevelInfo
	if e.Result == string(fault.Denied) {
		kind, level = "control.denied", slog.LevelWarn
	}
	message := e.Who + ": " + strings.TrimSpace(e.Op+" "+e.Target) + ": " + e.Result
	t.hub.publish(events.Event{Type: kind, Reason: e.Result, Message: message, Data: map[string]string{
		"who": e.Who, "op": e.Op, "target": e.Target, "audit": strconv.FormatInt(e.Seq, 10),
	}})
	about := []any{"op", e.Op}
	if e.Target != "" {
		about = append(about, "target", e.Target)
	}
	t.log.Log(context.Background(), level, kind, append(about, "result", e.Result, "who", e.Who, "request_id", e.RequestID)...)
}

const columns = "seq, time, who, uid, pid, origin, op, target, result, message, request_id"

// list pages through the trail, newest first.
func (t *trail) list(ctx context.Context, req *api.AuditRequest) (*rpc.List[api.AuditEntry], error) {
	before := int64(0)
	if req.After != "" {
		var err error
		if before, err = strconv.ParseInt(req.After, 10, 64); err != nil || before < 1 {
			return nil, fault.InvalidField("query.after", "is not a cursor of this list")
		}
	}
	where, args := "1", []any(nil)
	if req.Who != "" {
		where, args = where+" AND who = ?", append(args, req.Who)
	}
	if req.Op != "" {
		// The first part and everything below it: "user" is user.create and
		// not users.lookup. '/' follows '.' in ASCII.
		where, args = where+" AND (op = ? OR (op >= ? AND op < ?))", append(args, req.Op, req.Op+".", req.Op+"/")
	}
	if !req.Since.IsZero() {
		where, args = where+" AND time >= ?", append(args, req.Since)
	}
	out := &rpc.List[api.AuditEntry]{Items: []api.AuditEntry{}}
	err := t.db.Read(ctx, func(q store.Querier) error {
		if err := q.QueryRow("SELECT count(*) FROM audit WHERE "+where, args...).Scan(&out.Total); err != nil {
			return err
		}
		page, pageArgs := where, args
		if before > 0 {
			page, pageArgs = where+" AND seq < ?", append(args[:len(args):len(args)], before)
		}
		rows, err := q.Query("SELECT "+columns+" FROM audit WHERE "+page+" ORDER BY seq DESC LIMIT ?", append(pageArgs[:len(pageArgs):len(pageArgs)], req.Limit+1)...)
		if err != nil {
			return err
		}
		for rows.Next() {
			var e api.AuditEntry
			if err := rows.Scan(&e.Seq, &e.Time, &e.Who, &e.UID, &e.PID, &e.From, &e.Op, &e.Target, &e.Result, &e.Message, &e.RequestID); err != nil {
				return err
			}
			out.Items = append(out.Items, e)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list audit trail: %w", err)
	}
	if len(out.Items) > req.Limit {
		out.Items = out.Items[:req.Limit]
		out.Next = strconv.FormatInt(out.Items[req.Limit-1].Seq, 10)
	}
	return out, nil
}

// onlyLooks tells of a request that changes nothing although its operation can.
func onlyLooks(req any) bool {
	p, ok := req.(*logs.PurgeRequest)
	return ok && p.Body.DryRun
}

// target is what the request concerns. Bodies may hold secrets; the query of a
// purge holds none, and says all that there is to say.
func target(req any) string {
	if p, ok := req.(*logs.PurgeRequest); ok {
		return p.Body.Query
	}
	return pathTarget(req)
}

// pathTarget is what the request's path names, never its body.
func pathTarget(req any) string {
	v := reflect.Indirect(reflect.ValueOf(req))
	if v.Kind() != reflect.Struct {
		return ""
	}
	var parts []string
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.IsExported() || f.Anonymous || f.Tag.Get("path") == "" {
			continue
		}
		if fv, err := v.FieldByIndexErr(f.Index); err == nil {
			parts = append(parts, fmt.Sprint(fv.Interface()))
		}
	}
	return strings.Join(parts, " ")
}

// Longest texts that are kept, in bytes.
const (
	maxTarget  = 256
	maxMessage = 500
)

// plain cuts a text that came from outside and drops what is not printable.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '�'
	}, s)
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// problem tells whether the trail misses something.
func (t *trail) problem() error {
	if why := t.broken.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}
