package logs

import (
	"context"
	"slices"
	"time"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// maxEnds is for how many groups the first and last time are looked up: each
// costs two small queries. The others have none.
const maxEnds = 100

// only is the query with the fields held to these values; an empty one means
// that the record does not have the field.
func only(q logquery.Query, by, values []string) logquery.Query {
	q.Terms = slices.Clone(q.Terms)
	for i, field := range by {
		t := logquery.Term{Field: logline.Canonical(field), Op: logquery.Equal, Values: values[i : i+1], Prefix: []bool{false}}
		if values[i] == "" {
			t.Not, t.Prefix = true, []bool{true}
		}
		q.Terms = append(q.Terms, t)
	}
	return q
}

func (s *Service) ends(ctx context.Context, q logquery.Query, l logstore.Limits) (first, last time.Time, err error) {
	if first, err = s.end(ctx, q, l, true); err == nil {
		last, err = s.end(ctx, q, l, false)
	}
	return first, last, err
}

func (s *Service) end(ctx context.Context, q logquery.Query, l logstore.Limits, oldest bool) (time.Time, error) {
	l.Rows = 1
	r, err := s.lines.Query(ctx, q, logstore.Page{Oldest: oldest}, l)
	if err != nil || len(r.Rows) == 0 {
		return time.Time{}, err
	}
	return r.Rows[0].Record.Time, nil
}
