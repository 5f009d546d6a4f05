package users

import (
	"context"
	"encoding/base64"
	"strings"

	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

const (
	defaultPage = 100

	// filter takes status and search, each empty for all.
	filter = `(?1 = '' OR status = ?1) AND (?2 = '' OR instr(username, ?2) > 0 OR instr(coalesce(email_key, ''), ?2) > 0)`
)

// List gives a page of accounts in order of username. The cursor is the last
// username seen, so that pages neither skip nor repeat when others come and go.
func (u *Users) List(ctx context.Context, req *usersapi.ListRequest) (*rpc.List[usersapi.User], error) {
	after, err := base64.RawURLEncoding.Strict().DecodeString(req.After)
	if err != nil {
		return nil, fault.InvalidField("query.after", "is not a cursor of this list")
	}
	limit := req.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	search := strings.ToLower(req.Search)
	out := &rpc.List[usersapi.User]{Items: []usersapi.User{}}
	err = u.db.Read(ctx, func(q store.Querier) error {
		if err := q.QueryRow(`SELECT count(*) FROM users WHERE `+filter, req.Status, search).Scan(&out.Total); err != nil {
			return err
		}
		rows, err := q.Query(`SELECT `+columns+` FROM users WHERE `+filter+` AND username > ?3 ORDER BY username LIMIT ?4`,
			req.Status, search, string(after), limit+1)
		if err != nil {
			return err
		}
		for rows.Next() {
			r, err := scanRecord(rows)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, r.User)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	if len(out.Items) > limit {
		out.Items = out.Items[:limit]
		out.Next = base64.RawURLEncoding.EncodeToString([]byte(out.Items[limit-1].Username))
	}
	return out, nil
}
