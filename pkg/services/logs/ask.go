package logs

import (
	"context"
	"slices"
	"time"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
	"vpnd/pkg/rpc"
)

// maxBuckets is the longest histogram: more is a bucket that is too small.
const maxBuckets = 50_000

func parse(text string) (logquery.Query, error) { return logquery.Parse(text, time.Now()) }

// ask answers a question within the bounds of all.
func (s *Service) ask(ctx context.Context, text string, answer func(context.Context, logquery.Query, logstore.Limits) error) error {
	q, err := parse(text)
	if err != nil {
		return err
	}
	leave, err := s.asking.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return answer(ctx, q, logstore.Limits{Time: s.cfg.QueryTime.D()})
}

func (s *Service) query(ctx context.Context, req *api.QueryRequest) (*rpc.List[api.Record], error) {
	out := &rpc.List[api.Record]{}
	err := s.ask(ctx, req.Query, func(ctx context.Context, q logquery.Query, l logstore.Limits) error {
		l.Rows = req.Limit
		r, err := s.lines.Query(ctx, q, logstore.Page{Oldest: req.Order == "oldest", Cursor: req.After}, l)
		if err != nil {
			return err
		}
		for i := range r.Rows {
			out.Items = append(out.Items, record(&r.Rows[i]))
		}
		out.Next, out.Total = r.Next, len(r.Rows) // how many there are in all, count tells
		return nil
	})
	return out, err
}

func (s *Service) count(ctx context.Context, req *api.Ask) (*api.Number, error) {
	out := &api.Number{}
	err := s.ask(ctx, req.Query, func(ctx context.Context, q logquery.Query, l logstore.Limits) (err error) {
		out.Count, err = s.lines.Count(ctx, q, l)
		return err
	})
	return out, err
}

func (s *Service) stats(ctx context.Context, req *api.StatsRequest) (*rpc.List[api.Group], error) {
	return s.groups(ctx, req.Query, req.Limit, func(ctx context.Context, q logquery.Query, l logstore.Limits) ([]logstore.Group, error) {
		g, _, err := s.lines.Stats(ctx, q, l, req.By...)
		return g, err
	})
}

func (s *Service) top(ctx context.Context, req *api.TopRequest) (*rpc.List[api.Group], error) {
	return s.groups(ctx, req.Query, req.Limit, func(ctx context.Context, q logquery.Query, l logstore.Limits) ([]logstore.Group, error) {
		g, _, err := s.lines.Top(ctx, q, l, req.Field, 0)
		return g, err
	})
}

func (s *Service) groups(ctx context.Context, text string, limit int,
	find func(context.Context, logquery.Query, logstore.Limits) ([]logstore.Group, error)) (*rpc.List[api.Group], error) {
	out := &rpc.List[api.Group]{}
	err := s.ask(ctx, text, func(ctx context.Context, q logquery.Query, l logstore.Limits) error {
		found, err := find(ctx, q, l)
		if err != nil {
			return err
		}
		out.Total = len(found)
		for _, g := range found[:min(len(found), limit)] {
			out.Items = append(out.Items, api.Group{Values: g.Values, Count: g.Count, First: g.First, Last: g.Last})
		}
		return nil
	})
	return out, err
}

func (s *Service) histogram(ctx context.Context, req *api.HistogramRequest) (*rpc.List[api.Bucket], error) {
	out := &rpc.List[api.Bucket]{}
	err := s.ask(ctx, req.Query, func(ctx context.Context, q logquery.Query, l logstore.Limits) error {
		width := time.Duration(req.Bucket) * time.Second
		bins, err := s.lines.Histogram(ctx, q, l, width, req.By)
		if err != nil || len(bins) == 0 {
			return err
		}
		first, last := bins[0].Start, bins[len(bins)-1].Start
		if n := last.Sub(first)/width + 1; n > maxBuckets {
			return fault.InvalidField("query.bucket_seconds", "makes %d buckets; %d are the most", n, maxBuckets).
				WithHint("use a wider bucket, or a shorter time with since= and until=")
		}
		for at := first; !at.After(last); at = at.Add(width) {
			b := api.Bucket{Start: at}
			for len(bins) > 0 && bins[0].Start.Equal(at) {
				b.Count += bins[0].Count
				if req.By != "" {
					if b.By == nil {
						b.By = map[string]int64{}
					}
					b.By[bins[0].Value] += bins[0].Count
				}
				bins = bins[1:]
			}
			out.Items = append(out.Items, b)
		}
		out.Total = len(out.Items)
		return nil
	})
	return out, err
}

func (s *Service) fields(ctx context.Context, req *api.Ask) (*rpc.List[api.Field], error) {
	out := &rpc.List[api.Field]{}
	err := s.ask(ctx, req.Query, func(ctx context.Context, q logquery.Query, l logstore.Limits) error {
		found, err := s.lines.Fields(ctx, q, l)
		for _, f := range found {
			out.Items = append(out.Items, api.Field{Name: f.Name, Count: f.Count})
		}
		out.Total = len(found)
		return err
	})
	return out, err
}

func (s *Service) services(ctx context.Context, req *api.Ask) (*rpc.List[api.ServiceLines], error) {
	out := &rpc.List[api.ServiceLines]{}
	err := s.ask(ctx, req.Query, func(ctx context.Context, q logquery.Query, l logstore.Limits) error {
		found, err := s.lines.Services(ctx, q, l)
		for _, f := range found {
			out.Items = append(out.Items, api.ServiceLines{Name: f.Name, Count: f.Count, Errors: f.Errors, Last: f.Last})
		}
		out.Total = len(found)
		return err
	})
	return out, err
}

// export sends all that matches, the oldest first, up to the line that is the
// newest when it begins: else a slow reader would never come to an end.
func (s *Service) export(ctx context.Context, req *api.Ask, send func(api.Record) error) error {
	q, err := parse(req.Query)
	if err != nil {
		return err
	}
	leave, err := s.exporting.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	newest, err := s.lines.Query(ctx, q, logstore.Page{}, logstore.Limits{Rows: 1})
	if err != nil || len(newest.Rows) == 0 {
		return err
	}
	q.Until = newest.Rows[0].Record.Time.Add(time.Microsecond)
	return s.lines.Each(ctx, q, func(f logstore.Found) error { return send(record(&f)) })
}

func (s *Service) purge(ctx context.Context, req *api.PurgeRequest) (*api.Purged, error) {
	q, err := parse(req.Body.Query)
	if err != nil {
		return nil, err
	}
	out := &api.Purged{DryRun: req.Body.DryRun}
	days, err := s.lines.Purge(ctx, q, req.Body.DryRun)
	out.Days = slices.Grow(out.Days, len(days)+1)[:len(days)] // never null
	for i, d := range days {
		out.Days[i].Day, out.Days[i].Rows = d.Day.String(), d.Rows
		out.Rows += d.Rows
	}
	if err != nil {
		return nil, err
	}
	if !req.Body.DryRun {
		s.deps.Log.Info("logs_purged", "query", q.String(), "rows", out.Rows)
	}
	return out, nil
}
