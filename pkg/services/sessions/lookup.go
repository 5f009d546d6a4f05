package sessions

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// minPrefix is the shortest part of an id that names something: its kind and
// two characters.
const minPrefix = len(id.SessionPrefix) + 2

// List gives open sessions, newest first.
func (m *Manager) List(r api.ListRequest) (*rpc.List[api.Session], error) {
	m.mu.Lock()
	all := make([]api.Session, 0, len(m.byID))
	for _, s := range m.byID {
		if (r.User == "" || s.Username == r.User || string(s.User) == r.User) && (r.State == "" || string(s.State) == r.State) {
			all = append(all, s.Session)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(all, func(a, b api.Session) int {
		return cmp.Or(b.OpenedAt.Compare(a.OpenedAt), cmp.Compare(b.ID, a.ID))
	})
	out := &rpc.List[api.Session]{Total: len(all), Items: all}
	if r.After != "" {
		at, sid, err := parseCursor(r.After)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(s api.Session) bool {
			o := store.FromTime(s.OpenedAt)
			return o < at || (o == at && string(s.ID) < sid)
		})
		if i < 0 {
			i = len(all)
		}
		out.Items = all[i:]
	}
	if len(out.Items) > r.Limit {
		out.Items = out.Items[:r.Limit]
		last := out.Items[r.Limit-1]
		out.Next = cursor(store.FromTime(last.OpenedAt), string(last.ID))
	}
	return out, nil
}

// History gives closed sessions, latest end first.
func (m *Manager) History(ctx context.Context, r api.HistoryRequest) (*rpc.List[api.Session], error) {
	at, sid := int64(1)<<62, ""
	if r.After != "" {
		var err error
		if at, sid, err = parseCursor(r.After); err != nil {
			return nil, err
		}
	}
	var since int64
	if !r.Since.IsZero() {
		since = store.FromTime(r.Since)
	}
	const where = ` FROM sessions WHERE closed > 0 AND closed >= ? AND (? = '' OR username = ? OR user = ?)
		AND (? = '' OR device = ? OR device_name = ?)`
	filter := []any{since, r.User, r.User, r.User, r.Device, r.Device, r.Device}
	var total int
	err := m.db.db.Read(ctx, func(q store.Querier) error {
		return q.QueryRow(`SELECT count(*)`+where, filter...).Scan(&total)
	})
	if err != nil {
		return nil, err
	}
	found, err := m.db.query(ctx, `SELECT `+columns+where+` AND (closed < ? OR (closed = ? AND id < ?)) ORDER BY closed DESC, id DESC LIMIT ?`,
		append(filter, at, at, sid, r.Limit+1)...)
	if err != nil {
		return nil, err
	}
	out := &rpc.List[api.Session]{Items: []api.Session{}, Total: total}
	for _, s := range found {
		if len(out.Items) == r.Limit {
			last := out.Items[r.Limit-1]
			out.Next = cursor(store.FromTime(*last.ClosedAt), string(last.ID))
			break
		}
		out.Items = append(out.Items, s.Session)
	}
	return out, nil
}

func cursor(micros int64, sid string) string { return strconv.FormatInt(micros, 10) + "." + sid }

func parseCursor(s string) (int64, string, error) {
	at, sid, ok := strings.Cut(s, ".")
	n, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return 0, "", fault.InvalidField("query.after", "is not a cursor of this list")
	}
	return n, sid, nil
}

// Find resolves a reference to one session, open ones first.
func (m *Manager) Find(ctx context.Context, ref string) (api.Session, error) {
	found := m.findOpen(ref)
	if len(found) == 0 && strings.HasPrefix(ref, id.SessionPrefix) && len(ref) >= minPrefix {
		closed, err := m.db.query(ctx, `SELECT `+columns+` FROM sessions WHERE id >= ? AND id < ? AND closed > 0 LIMIT 3`, ref, ref+"~")
		if err != nil {
			return api.Session{}, err
		}
		for _, s := range closed {
			found = append(found, s.Session)
		}
	}
	switch len(found) {
	case 0:
		return api.Session{}, fault.New(fault.NotFound, "no session %q", ref).
			WithHint("'vpnctl session list' shows open sessions, 'vpnctl session history' closed ones")
	case 1:
		return found[0], nil
	}
	names := make([]string, len(found))
	for i, s := range found {
		names[i] = string(s.ID) + " (" + s.Username + "/" + s.DeviceName + ")"
	}
	slices.Sort(names)
	return api.Session{}, fault.New(fault.Conflict, "%q fits %d sessions", ref, len(found)).
		WithReason("ambiguous").WithHint("say one of: %s", strings.Join(names[:min(len(names), 5)], ", "))
}

func (m *Manager) findOpen(ref string) (found []api.Session) {
	user, device, slash := strings.Cut(ref, "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.byID[id.Session(ref)]; s != nil {
		return []api.Session{s.Session}
	}
	if s := m.byDevice[id.Device(ref)]; s != nil {
		return []api.Session{s.Session}
	}
	for _, s := range m.byID {
		named := s.Username == user && (!slash || s.DeviceName == device)
		prefixed := len(ref) >= minPrefix && strings.HasPrefix(string(s.ID), ref)
		if named || prefixed {
			found = append(found, s.Session)
		}
	}
	return found
}

// Kill closes the session that ref names, and returns after its peer is gone.
// One that was closed before is given as it is.
func (m *Manager) Kill(ctx context.Context, ref string) (*api.Session, error) {
	s, err := m.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	// Also for a closed one: its peer may still be there.
	closed, err := m.closeDevice(ctx, s.Device, s.ID, api.ByAdmin, false)
	if err != nil || closed != nil {
		return closed, err
	}
	s, err = m.Find(ctx, string(s.ID)) // somebody was quicker
	return &s, err
}

// ReleaseLease closes the session of the device that ref names and gives its
// addresses back.
func (m *Manager) ReleaseLease(ctx context.Context, ref string) error {
	device := id.Device(ref)
	if !strings.HasPrefix(ref, id.DevicePrefix) {
		s, err := m.Find(ctx, ref)
		if err != nil {
			return err
		}
		device = s.Device
	}
	_, err := m.CloseDevice(ctx, device, api.LeaseReleased, true)
	return err
}
