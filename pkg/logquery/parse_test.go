package logquery_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/fault"
	"vpnd/pkg/logquery"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func TestParse(t *testing.T) {
	star := []bool{false, true}
	got, err := logquery.Parse(`service=auth  level>=Warning user=alice,bo* !event=ping "sign-in refused" -dur_ms>2e2 since=1h until=now`, now)
	if err != nil {
		t.Fatal(err)
	}
	want := logquery.Query{
		Terms: []logquery.Term{
			{Field: "service", Op: logquery.Equal, Values: []string{"auth"}, Prefix: star[:1], Column: 1},
			{Field: "level", Op: logquery.GreaterEqual, Values: []string{"warn"}, Prefix: star[:1], Number: []float64{4}, Column: 15},
			{Field: "user", Op: logquery.Equal, Values: []string{"alice", "bo"}, Prefix: star, Column: 30},
			{Not: true, Field: "event", Op: logquery.Equal, Values: []string{"ping"}, Prefix: star[:1], Column: 45},
			{Op: logquery.Text, Values: []string{"sign-in refused"}, Prefix: star[:1], Column: 57},
			{Not: true, Field: "dur_ms", Op: logquery.Greater, Values: []string{"2e2"}, Prefix: star[:1], Number: []float64{200}, Column: 75},
		},
		Since: time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC),
		Until: time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		" \n\u00a0 ":                            "",
		"refused":                               "refused",
		"Sign-In*":                              `"Sign-In"*`,
		`"a b"*`:                                `"a b"*`,
		`"OR"`:                                  `"OR"`,
		`ORDER or`:                              `ORDER or`,
		"10.8.0.1":                              `"10.8.0.1"`,
		"a!=b":                                  "!a=b",
		"!a!=b":                                 "a=b",
		"-a":                                    "!a",
		`"-a"`:                                  `"-a"`,
		"svc=x severity=ERR USERNAME=":          "",
		"severity=ERR,20,* username=a":          "level=error,debug,* user=a",
		"level<4":                               "level<warn",
		"x=*":                                   "x=*",
		`x=\*`:                                  `x="*"`,
		`x=""*,"",a\,b,c\ d,\"`:                 `x=*,"","a,b","c d","\""`,
		`x=C:\\dir`:                             `x="C:\\dir"`,
		`x="\n\t\r\\"`:                          `x="\n\t\r\\"`,
		`x=a=b,c>d!`:                            `x="a=b","c>d!"`,
		`"odd key"=1 "since"=2 a\ b=3`:          "",
		`"odd key"=1 "since"=2`:                 `"odd key"=1 "since"=2`,
		`"a\"b'; --"="'; DROP"`:                 `"a\"b'; --"="'; DROP"`,
		"n>-5 n<=+1.5 n<\"3\"":                  `n>-5 n<="+1.5" n<3`,
		"日本 ключ=значение":                      "日本 ключ=значение",
		"since=1d12h until=30m":                 "since=2026-02-28T00:00:00.123456Z until=2026-03-01T11:30:00.123456Z",
		"since=yesterday until=today":           "since=2026-02-28T00:00:00.000000Z until=2026-03-01T00:00:00.000000Z",
		"time=2024-02-29":                       "since=2024-02-29T00:00:00.000000Z until=2024-03-01T00:00:00.000000Z",
		"time=yesterday":                        "since=2026-02-28T00:00:00.000000Z until=2026-03-01T00:00:00.000000Z",
		"since=21:30":                           "since=2026-03-01T21:30:00.000000Z",
		`SINCE=21:30 "Until"=1`:                 `"Until"=1 since=2026-03-01T21:30:00.000000Z`,
		"ſince=x":                               "ſince=x",
		`since="yesterday 21:30:05.5"`:          "since=2026-02-28T21:30:05.500000Z",
		"since=2026-01-31T21:30":                "since=2026-01-31T21:30:00.000000Z",
		"since=2026-01-31T21:30:00+02:00":       "since=2026-01-31T19:30:00.000000Z",
		"since=2026-01-31T21:30+02:00":          "since=2026-01-31T19:30:00.000000Z",
		"timestamp>2026-01-01 time<=2026-01-02": "since=2026-01-01T00:00:00.000001Z until=2026-01-02T00:00:00.000001Z",
		"time>=2026-01-01 time<2026-01-02":      "since=2026-01-01T00:00:00.000000Z until=2026-01-02T00:00:00.000000Z",
		"since=1h since=2h until=10m until=5m":  "since=2026-03-01T11:00:00.123456Z until=2026-03-01T11:50:00.123456Z",
	} {
		q, err := logquery.Parse(text, now)
		if want == "" && strings.TrimSpace(text) != "" {
			if err == nil {
				t.Errorf("%q must be refused, gives %q", text, q)
			}
			continue
		}
		if err != nil || q.String() != want {
			t.Errorf("%q gives\n%s, want\n%s (%v)", text, q, want, err)
		}
	}
}

func TestTimesOfAPlace(t *testing.T) {
	loc := time.FixedZone("x", 2*3600)
	q, err := logquery.ParseIn("since=yesterday until=11:00", now, loc)
	if want := "since=2026-02-27T22:00:00.000000Z until=2026-03-01T09:00:00.000000Z"; err != nil || q.String() != want {
		t.Errorf("%v, %v", q, err)
	}
}

// On the days when the clocks change, a day is 23 or 25 hours long, while 1d is
// always 24.
func TestDaysWhenClocksChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	for text, want := range map[string]string{
		"time=2026-03-29": "since=2026-03-28T23:00:00.000000Z until=2026-03-29T22:00:00.000000Z",
		"time=2026-10-25": "since=2026-10-24T22:00:00.000000Z until=2026-10-25T23:00:00.000000Z",
		"time=yesterday":  "since=2026-10-24T22:00:00.000000Z until=2026-10-25T23:00:00.000000Z",
		"since=1d":        "since=2026-10-25T11:00:00.000000Z",
	} {
		q, err := logquery.ParseIn(text, time.Date(2026, 10, 26, 11, 0, 0, 0, time.UTC), berlin)
		if err != nil || q.String() != want {
			t.Errorf("%s gives %v, %v; want %s", text, q, err, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	many := func(n int, s, sep string) string { return strings.TrimSuffix(strings.Repeat(s+sep, n), sep) }
	for _, c := range []struct {
		text   string
		column int
		part   string
	}{
		{"a !", 3, "alone"}, {"a - b", 3, "alone"}, {"!!a", 2, "twice"}, {"--force", 2, "twice"},
		{`é "a`, 3, "never closed"}, {`a"b`, 2, "middle"}, {`"a"b`, 4, "right after"}, {`x="a"b`, 6, "right after"},
		{"a*b", 2, "only be the end"}, {"x=a*b", 4, "only be the end"}, {`a\`, 2, "at the end"}, {`x=\d`, 3, "means nothing"}, {`"\u0041"`, 2, "means nothing"},
		{"*", 1, "no letter"}, {"... a", 1, "no letter"}, {`""`, 1, "no letter"},
		{"a OR b", 3, "OR is not"}, {"!NOT", 2, "NOT is not"},
		{"=b", 1, "without a field"}, {"a = b", 3, "without a field"}, {`""=b`, 1, "without a field"}, {"a*=b", 1, "cannot end in *"}, {"http://x?a=b", 1, "no field name"},
		{"user=", 6, "missing"}, {"user= x", 6, "missing"}, {"user=a,,b", 8, "missing"}, {"user=a,", 8, "missing"},
		{"n>x", 3, "not a number"}, {"n>0x10", 3, "not a number"}, {"n>1,2", 5, "one plain value"}, {"n>1*", 3, "one plain value"}, {"n>inf", 3, "not a number"}, {"n>1e999", 3, "not a number"}, {`n>""`, 3, "not a number"}, {"a->b", 4, "not a number"},
		{"level=loud", 7, "not a level"}, {"level=w*", 7, "not a level"}, {"level>=*", 8, "one plain value"}, {`level=""`, 7, "not a level"},
		{"since=soon", 7, "not a time"}, {"since=", 7, "not a time"}, {"since=1", 7, "not a time"}, {"since=h", 7, "not a time"}, {"since=1y", 7, "not a time"}, {"since=1h*", 7, "not a time"}, {"since=25:00", 7, "not a time"}, {"since=2026-02-29", 7, "not a time"},
		{"since=99999999999999999999d", 7, "not a time"}, {"since=1h since=36501d", 16, "not a time"}, {"since=30000d", 7, "outside"}, {"until=2200-01-01", 7, "outside"}, {"since=1h,2h", 9, "list of times"},
		{"since>1h", 6, "no other form"}, {"!since=1h", 7, "no other form"}, {"until!=1h", 6, "no other form"}, {"!time=today", 6, "negated"}, {"time!=today", 5, "negated"}, {"time=12:00", 6, "not a day"}, {"time=1h", 6, "not a day"},
		{"since=1h until=2h x", 16, "leave nothing"}, {"since=now until=now", 17, "leave nothing"},
		{"a\x00", 2, "NUL"}, {"é\xff", 2, "UTF-8"}, {many(65537, "x", ""), 1, "bytes"}, {many(257, "x", " "), 513, "terms"}, {"x=" + many(1001, "y", ","), 2003, "values"},
		{strings.Repeat(`x=`+many(501, "y", ",")+" ", 2), 2005, "values"},
	} {
		t.Run(fmt.Sprintf("%.30q", c.text), func(t *testing.T) {
			q, err := logquery.Parse(c.text, now)
			e, ok := errors.AsType[*logquery.Error](err)
			if !ok {
				t.Fatalf("got %v, %v", q, err)
			}
			if e.Column != c.column || !strings.Contains(e.Message, c.part) || e.Hint == "" {
				t.Errorf("got column %d, %q, %q; want column %d, …%s…", e.Column, e.Message, e.Hint, c.column, c.part)
			}
			f := fault.From(err)
			if !errors.Is(err, fault.Invalid) || len(f.Fields) != 1 || f.Fields[0].Path != "query" || f.Hint != e.Hint || !strings.Contains(f.Message, fmt.Sprintf("column %d", c.column)) {
				t.Errorf("as a fault: %+v", f)
			}
		})
	}
	if _, err := logquery.Parse(many(256, "x", " "), now); err != nil {
		t.Error(err)
	}
	if _, err := logquery.Parse("x="+many(1000, "y", ","), now); err != nil {
		t.Error(err)
	}
}

func TestQuote(t *testing.T) {
	for _, v := range []string{"", "a b", `"\`, "*", "x\n\t\r", "since", "日本"} {
		q, err := logquery.Parse("x="+logquery.Quote(v), now)
		if err != nil || len(q.Terms) != 1 || q.Terms[0].Values[0] != v || q.Terms[0].Prefix[0] {
			t.Errorf("%q gives %v, %v", v, q, err)
		}
	}
}

func withoutColumns(q logquery.Query) logquery.Query {
	for i := range q.Terms {
		q.Terms[i].Column = 0
	}
	return q
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`service=auth level>=warn user=alice,bob !event=ping "sign-in refused" dur_ms>200 since=1h until=now`, `-"a b"* x="",*,\* "since"!=1`, "time=today", `a\ b "\n`, "level=*,error", "é=ß Ⅷ _ ~", `x=\"`, "n<=-1.5e3", "!since=", "a,b:c", "x=*a",
		"since=yesterday until=21:00", "OR", `""*`, `=`, "a\x00", "\xff", "İ ǅ ﬀ",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := logquery.Parse(text, now)
		if err != nil {
			e, ok := errors.AsType[*logquery.Error](err)
			if !ok || e.Column < 1 || e.Column > utf8.RuneCountInString(text)+1 || e.Message == "" || e.Hint == "" || len(e.Message) > 400 && len(text) < 200 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		canonical := q.String()
		if len(canonical) > logquery.MaxText {
			return // quoting made it longer
		}
		again, err := logquery.Parse(canonical, now.Add(time.Hour))
		if err != nil {
			t.Fatalf("%q, canonical %q: %v", text, canonical, err)
		}
		if !reflect.DeepEqual(withoutColumns(q), withoutColumns(again)) || again.String() != canonical {
			t.Fatalf("%q gives %q gives %q:\n%s", text, canonical, again, cmp.Diff(q, again))
		}
		for i := range records {
			if got, want := q.Match(&records[i]), slowMatch(q, &records[i]); got != want {
				t.Fatalf("%q on %s: %v, the oracle %v", text, records[i].JSON(), got, want)
			}
		}
		if h := q.Highlights(text); len(h) > 0 && h[len(h)-1][1] > len(text) {
			t.Fatalf("%q: %v", text, h)
		}
	})
}
