package logs

import (
	"context"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// maxSaved is how many queries may have a name.
const maxSaved = 1000

// migrations is the history of saved.db. Times are microseconds since 1970.
func migrations() []store.Migration {
	return []store.Migration{{Name: "saved queries", SQL: `
CREATE TABLE saved (
	name       TEXT PRIMARY KEY,
	query      TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	updated_at INTEGER NOT NULL,
	runs       INTEGER NOT NULL DEFAULT 0,
	last_run   INTEGER  -- NULL for never
) STRICT;`}}
}

const savedColumns = "name, query, created_at, updated_at, runs, last_run"

func scanSaved(scan func(...any) error) (api.Saved, error) {
	var v api.Saved
	var last *int64
	var created, updated int64
	err := scan(&v.Name, &v.Query, &created, &updated, &v.Runs, &last)
	v.CreatedAt, v.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	if last != nil {
		t := time.UnixMicro(*last).UTC()
		v.LastRun = &t
	}
	return v, err
}

func (s *Service) listSaved(ctx context.Context, _ *struct{}) (*rpc.List[api.Saved], error) {
	out := &rpc.List[api.Saved]{}
	err := s.saved.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query("SELECT " + savedColumns + " FROM saved ORDER BY name")
		if err != nil {
			return err
		}
		for rows.Next() {
			v, err := scanSaved(rows.Scan)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, v)
		}
		return rows.Err()
	})
	out.Total = len(out.Items)
	return out, err
}

// save keeps the query under its name, in the place of one that has it.
func (s *Service) save(ctx context.Context, req *api.SaveRequest) (*api.Saved, error) {
	if _, err := parse(req.Body.Query); err != nil {
		return nil, err
	}
	return s.change(ctx, req.Name, func(tx *store.Tx) error {
		var others int
		if err := tx.QueryRow("SELECT count(*) FROM saved WHERE name <> ?", req.Name).Scan(&others); err != nil {
			return err
		}
		if others >= maxSaved {
			return fault.New(fault.Exhausted, "%d queries are saved, which is the most", maxSaved).WithHint("delete one with 'vpnctl logs saved delete'")
		}
		now := time.Now().UnixMicro()
		_, err := tx.Exec(`INSERT INTO saved (name, query, created_at, updated_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET query = excluded.query, updated_at = excluded.updated_at`, req.Name, req.Body.Query, now, now)
		return err
	})
}

// runSaved counts a run; asking is left to the caller.
func (s *Service) runSaved(ctx context.Context, req *api.SavedRef) (*api.Saved, error) {
	return s.change(ctx, req.Name, func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE saved SET runs = runs + 1, last_run = ? WHERE name = ?", time.Now().UnixMicro(), req.Name)
		return err
	})
}

// change does something to a saved query and gives what it is then.
func (s *Service) change(ctx context.Context, name string, do func(*store.Tx) error) (*api.Saved, error) {
	var out api.Saved
	err := s.saved.Write(ctx, func(tx *store.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		rows, err := tx.Query("SELECT "+savedColumns+" FROM saved WHERE name = ?", name)
		if err != nil {
			return err
		}
		if !rows.Next() {
			return noSaved(name)
		}
		out, err = scanSaved(rows.Scan)
		return err
	})
	return &out, err
}

func (s *Service) deleteSaved(ctx context.Context, req *api.SavedRef) (*rpc.None, error) {
	err := s.saved.Write(ctx, func(tx *store.Tx) error {
		r, err := tx.Exec("DELETE FROM saved WHERE name = ?", req.Name)
		if err == nil && r.RowsAffected == 0 {
			err = noSaved(req.Name)
		}
		return err
	})
	return &rpc.None{}, err
}

func noSaved(name string) error {
	return fault.New(fault.NotFound, "no query is saved as %q", name).WithHint("'vpnctl logs saved list' shows the names")
}
