//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/rpc"
)

// askKind is the questions that share a goal.
type askKind struct {
	what string
	goal float64 // ms; 0: none
}

var (
	findNewest = askKind{"newest 100", 5}
	findText   = askKind{"text search", 20}
	countDay   = askKind{"count", 5}
	analyse    = askKind{"histogram, top 10", 40}
	others     = askKind{}
)

// question is one thing to ask the log service.
type question struct {
	askKind
	name string
	ask  func(context.Context, *rpc.Conn) (int64, error)
	sql  string // the same for SQLite; its answer must be the same
	word string // what a line has that is to be found; for a bare scan
}

// day is the time of the corpus' last day, for the log service and for SQLite.
func (l *logBench) day() (query, where string) {
	from := l.days[len(l.days)-1].from
	to := from.AddDate(0, 0, 1)
	return fmt.Sprintf(" since=%s until=%s", from.Format(time.DateOnly), to.Format(time.DateOnly)),
		fmt.Sprintf("time >= %d AND time < %d", from.UnixMicro(), to.UnixMicro())
}

// pageLines is how many lines a page has at most.
const pageLines = 100

func pageOf(query, where string) question {
	q := question{askKind: findNewest, name: "newest 100: " + query}
	if query == "" {
		q.name = "newest 100"
	}
	q.ask = func(ctx context.Context, c *rpc.Conn) (int64, error) {
		list, err := logs.Query.Call(ctx, c, &logs.QueryRequest{Ask: logs.Ask{Query: query}, Limit: pageLines, Order: "newest"})
		if err != nil {
			return 0, err
		}
		return int64(len(list.Items)), nil
	}
	if where != "" {
		q.sql = fmt.Sprintf("SELECT * FROM log WHERE %s ORDER BY time DESC LIMIT %d", where, pageLines)
	}
	return q
}

func textOf(query, word string) question {
	q := pageOf(query, "")
	q.askKind, q.name, q.word = findText, "text, newest 100: "+query, word
	return q
}

// counted is a question that is answered with counts, whose sum is compared.
func counted[T any](kind askKind, name string, ask func(context.Context, *rpc.Conn) ([]T, error), count func(T) int64, sql string) question {
	return question{askKind: kind, name: name, sql: sql, ask: func(ctx context.Context, c *rpc.Conn) (int64, error) {
		list, err := ask(ctx, c)
		sum := int64(0)
		for _, v := range list {
			sum += count(v)
		}
		return sum, err
	}}
}

func itemsOf[T any](l *rpc.List[T], err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// questions is all that the log service is asked.
func (l *logBench) questions() []question {
	since, day := l.day()
	group := func(g logs.Group) int64 { return g.Count }
	histogram := func(name, filter, by, sql string) question {
		return counted(analyse, "histogram by minute, one day"+name, func(ctx context.Context, c *rpc.Conn) ([]logs.Bucket, error) {
			return itemsOf(logs.Histogram.Call(ctx, c, &logs.HistogramRequest{Ask: logs.Ask{Query: filter + since}, Bucket: 60, By: by}))
		}, func(b logs.Bucket) int64 { return b.Count }, sql)
	}
	top := func(field, filter, and string) question {
		name := fmt.Sprintf("top 10 of %s, one day", field)
		if filter != "" {
			name += ": " + filter
		}
		return counted(analyse, name, func(ctx context.Context, c *rpc.Conn) ([]logs.Group, error) {
			return itemsOf(logs.Top.Call(ctx, c, &logs.TopRequest{Ask: logs.Ask{Query: filter + since}, Field: field, Limit: 10}))
		}, group, fmt.Sprintf("SELECT %s, count(*) n FROM log WHERE %s%s GROUP BY 1 ORDER BY n DESC LIMIT 10", field, day, and))
	}
	stats := func(a, b string) question {
		return counted(others, fmt.Sprintf("stats by %s and %s, one day", a, b), func(ctx context.Context, c *rpc.Conn) ([]logs.Group, error) {
			return itemsOf(logs.Stats.Call(ctx, c, &logs.StatsRequest{Ask: logs.Ask{Query: since}, By: []string{a, b}, Limit: 1000}))
		}, group, fmt.Sprintf("SELECT %s, %s, count(*) n FROM log WHERE %s GROUP BY 1, 2 ORDER BY n DESC LIMIT 1000", a, b, day))
	}
	return []question{
		pageOf("", "true"),
		pageOf("service=auth level>=error", "service = 'auth' AND level >= 5"),
		pageOf("user=user77", "user = 'user77'"),
		pageOf("peer=p01234", "peer = 'p01234'"),
		pageOf("dur_ms>4000", "dur_ms > 4000"),
		textOf("p01234", "p01234"),
		textOf("tor", "lane tor"),
		textOf("nosuchword", "nosuchword"),
		textOf(`"p01234 at"`, "p01234 at"),
		textOf(`"in lane tor"`, "in lane tor"),
		textOf("p0123*", "p0123"),
		{
			askKind: countDay, name: "count service=auth level>=warn, one day",
			ask: func(ctx context.Context, c *rpc.Conn) (int64, error) {
				n, err := logs.Count.Call(ctx, c, &logs.Ask{Query: "service=auth level>=warn" + since})
				if err != nil {
					return 0, err
				}
				return n.Count, nil
			},
			sql: "SELECT count(*) n FROM log WHERE service = 'auth' AND level >= 4 AND " + day,
		},
		histogram("", "", "", "SELECT time/60000000, count(*) n FROM log WHERE "+day+" GROUP BY 1"),
		histogram(", by level", "", "level", "SELECT time/60000000, level, count(*) n FROM log WHERE "+day+" GROUP BY 1, 2"),
		histogram(": user=user77", "user=user77", "", "SELECT time/60000000, count(*) n FROM log WHERE user = 'user77' AND "+day+" GROUP BY 1"),
		top("service", "", ""),
		top("user", "", ""),
		top("event", "level>=error", " AND level >= 5"),
		stats("service", "level"),
		stats("user", "event"),
		{name: "fields, one day", ask: func(ctx context.Context, c *rpc.Conn) (int64, error) {
			list, err := itemsOf(logs.Fields.Call(ctx, c, &logs.Ask{Query: since}))
			return int64(len(list)), err
		}},
	}
}

// answer is what a question took, warm.
type answer struct {
	question
	times, floor samples
	floorIs      string
	cpu          float64 // ms of the service, each
}

// Each question is put so often, those without a goal less often when they take
// long. What comes before does not count: it warms up.
const (
	asks      = 20
	asksLeast = 5
	asksMost  = 2 * time.Second
	asksWarm  = 2
)

// answers asks everything, with the floors when they are wanted.
func (s *suite) answers(ctx context.Context, floors bool) ([]answer, error) {
	pid, err := s.logsProcess()
	if err != nil {
		return nil, err
	}
	var out []answer
	for _, q := range s.logs.questions() {
		a := answer{question: q}
		got := int64(0)
		ask := func() (err error) {
			got, err = q.ask(ctx, s.ops)
			return err
		}
		for range asksWarm {
			if err := ask(); err != nil {
				return nil, fmt.Errorf("%s: %w", q.name, err)
			}
		}
		before, err := threadTime(pid)
		if err != nil {
			return nil, err
		}
		for began := time.Now(); len(a.times) < asks && (q.goal > 0 || len(a.times) < asksLeast || time.Since(began) < asksMost); {
			if err := a.times.timed(ask); err != nil {
				return nil, fmt.Errorf("%s: %w", q.name, err)
			}
		}
		after, err := threadTime(pid)
		if err != nil {
			return nil, err
		}
		a.cpu = millis(after-before) / float64(len(a.times))
		if floors {
			if err := s.floorOf(ctx, &a, got); err != nil {
				return nil, fmt.Errorf("%s: %w", q.name, err)
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// floorOf gives the same question to SQLite, or looks through the files, as
// often as fits into a short time. SQLite must say the same.
func (s *suite) floorOf(ctx context.Context, a *answer, got int64) error {
	l := s.logs
	var ask func() (int64, error)
	switch {
	case a.sql != "":
		db, err := l.sqlite(ctx, s.tmp)
		if err != nil {
			return err
		}
		a.floorIs = "the same rows in SQLite with one index"
		ask = func() (int64, error) { return db.ask(ctx, a.sql) }
	case a.word != "":
		a.floorIs = "reading the files from their end until a hundred lines have it"
		var paths []string
		for _, d := range l.days {
			paths = append(paths, d.path)
		}
		ask = func() (int64, error) {
			n, err := scanBack(paths, a.word, pageLines)
			return int64(n), err
		}
	default:
		return nil
	}
	const most = 600 * time.Millisecond
	for began := time.Now(); len(a.floor) == 0 || len(a.floor) < asks && time.Since(began) < most; {
		n := int64(0)
		err := a.floor.timed(func() (err error) {
			n, err = ask()
			return err
		})
		if err != nil {
			return err
		}
		if n != got {
			return fmt.Errorf("the log service says %d, the floor %d", got, n)
		}
	}
	return ctx.Err()
}

// logsAsk puts every question while nothing else happens.
func logsAsk(ctx context.Context, s *suite) error {
	if _, err := s.takeIn(ctx); err != nil {
		return err
	}
	answers, err := s.answers(ctx, true)
	if err != nil {
		return err
	}
	hop, err := s.emptyAsk(ctx)
	if err != nil {
		return err
	}
	if s.logs.taken.peakAsked, err = s.logsPeak(); err != nil {
		return err
	}
	s.logs.quiet = answers
	for i, a := range answers {
		r := result{
			Name: "logs-ask", What: "logs, " + a.name, Unit: inMillis,
			Value: a.times.median(), Floor: a.floor.median(), FloorIs: a.floorIs,
		}
		if a.goal > 0 {
			r.goal(fmt.Sprintf("%.0f ms", a.goal), r.Value <= a.goal)
		}
		r.keep("ask", a.times)
		r.keep("floor", a.floor)
		r.note("worst of %d: %.2f ms; processor time of the service %.2f ms", len(a.times), a.times.max(), a.cpu)
		if i == 0 {
			r.note("this and the following at %d lines, medians, over control.sock, which passes questions on: with an empty answer that takes %.2f ms", s.logs.rows, hop.median())
		}
		s.report.add(r)
	}
	return nil
}

// emptyAsk is a question whose answer takes no looking up: what the way to the
// service and back takes.
func (s *suite) emptyAsk(ctx context.Context) (samples, error) {
	var out samples
	for range 2 * asks {
		err := out.timed(func() error { _, err := logs.ListSaved.Call(ctx, s.ops, nil); return err })
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
