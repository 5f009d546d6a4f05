package logquery_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
)

func record(line string) logline.Record {
	return logline.Parse([]byte(line), logline.Defaults{Service: "file", File: "/l/a.log", Now: now})
}

var records = []logline.Record{
	record(`{"ts":"2026-03-01T11:30:00Z","level":"warn","event":"sign-in refused","service":"auth","user":"alice","device":"phone","request_id":"r-1","dur_ms":250,"peer":{"ip":"10.8.0.1"},"note":""}`),
	record(`{"ts":"2026-02-28T23:00:00Z","level":"info","event":"ping","msg":"Refused: SIGN in, straße","user":"bob","username":"carol","dur_ms":"12.5","odd key":"*","tags":["a","b"]}`),
	record("plain text İ x_y " + strings.Repeat("é", 70)), {Time: now},
}

// slowMatch says what a query means, as plainly as it can be said.
func slowMatch(q logquery.Query, r *logline.Record) bool {
	if r.Time.Before(q.Since) || !q.Until.IsZero() && !r.Time.Before(q.Until) {
		return false
	}
	for _, t := range q.Terms {
		if slowTerm(t, r) == t.Not {
			return false
		}
	}
	return true
}

func slowTerm(t logquery.Term, r *logline.Record) bool {
	var texts []string
	values := map[string][]string{"service": {r.Service}, "file": {r.File}, "event": {r.Event}, "message": {r.Message}, "user": {r.User}, "device": {r.Device}, "session": {r.Session}, "request_id": {r.RequestID}}
	for k, v := range values {
		if v[0] == "" {
			delete(values, k)
		} else if k != "service" && k != "file" {
			texts = append(texts, v[0])
		}
	}
	for _, f := range r.Fields {
		texts = append(texts, f.Value)
		values[f.Key] = append(values[f.Key], f.Value)
	}
	if t.Op == logquery.Text {
		want := " " + strings.Join(slowTokens(t.Values[0]), " ")
		if !t.Prefix[0] {
			want += " "
		}
		return slices.ContainsFunc(texts, func(s string) bool {
			return strings.Contains(" "+strings.Join(slowTokens(s), " ")+" ", want)
		})
	}
	if t.Field == "level" {
		delete(values, "level")
		if r.Level != logline.Unknown {
			if values["level"] = []string{r.Level.String()}; t.Op != logquery.Equal {
				values["level"][0] = strconv.Itoa(int(r.Level))
			}
		}
	}
	return slices.ContainsFunc(values[t.Field], func(got string) bool {
		if t.Op == logquery.Equal {
			for i, want := range t.Values {
				if got == want || t.Prefix[i] && strings.HasPrefix(got, want) {
					return true
				}
			}
			return false
		}
		n, ok := logquery.ParseNumber(got)
		return ok && map[logquery.Op]bool{logquery.Less: n < t.Number[0], logquery.LessEqual: n <= t.Number[0], logquery.Greater: n > t.Number[0], logquery.GreaterEqual: n >= t.Number[0]}[t.Op]
	})
}

func slowTokens(s string) []string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for i, w := range words {
		if r := []rune(w); len(r) > 64 {
			w = string(r[:64])
		}
		words[i] = strings.ToLower(w)
	}
	return words
}

func TestMatch(t *testing.T) {
	for text, want := range map[string]string{
		"": "0123", "service=auth": "0", "service=file": "12", "service!=auth": "123", "service=*": "012", "user=alice,bob": "01", "user=carol": "1", "user=al*": "0", "user=Alice": "", "user=*": "01", "!user=*": "23",
		"level>=warn": "0", "level<warn": "1", "level=*": "01", "!level=*": "23", "!level>=warn": "123", "level=info,warn": "01",
		"dur_ms>200": "0", "dur_ms<=12.5": "1", "!dur_ms>200": "123", "user>1": "", "dur_ms=250": "0", "dur_ms=250.0": "",
		"refused": "01", "REFUSED": "01", "refuse": "", "refuse*": "01", `"sign-in refused"`: "0", `"refused sign"`: "1", "sign refused": "01", "sign-in": "01", `"sign-in ref"*`: "0", "!refused": "23", "auth": "", "alice": "0", "10.8.0.1": "0", "10.8": "0", "8.10": "",
		"x": "", "x_y": "2", "y": "", "straße": "1", "STRASSE": "", "peer.ip=10.8.0.*": "0", `note=""`: "0", "note=*": "0", `"odd key"=\*`: "1", `"odd key"=x`: "", "b": "1", "tags=*": "1", "file=/l/*": "012",
		"since=1h": "03", "until=1h": "1", "time=yesterday": "1", "time=today": "023", "since=2026-03-01T11:30:00Z until=2026-03-01T11:30:00.000001Z": "0", "until=2026-03-01T11:30:00Z": "1",
		"é*": "2", strings.Repeat("é", 64): "2", strings.Repeat("É", 90): "2", strings.Repeat("é", 63): "", "message=Refused*": "1", `message="Refused: SIGN in, straße"`: "1",
	} {
		q, err := logquery.Parse(text, now)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got, slow, match := "", "", q.Matcher()
		for i := range records {
			if match(&records[i]) {
				got += strconv.Itoa(i)
			}
			if slowMatch(q, &records[i]) {
				slow += strconv.Itoa(i)
			}
		}
		if q.Since.Equal(time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC)) {
			want = "023" // the lines without a time came now
		}
		if got != want || slow != want {
			t.Errorf("%q finds %q, the oracle %q; want %q", text, got, slow, want)
		}
	}
}

// TestMatchAgainstOracle: random queries over random records made of few
// words, so that all of them hit something.
func TestMatchAgainstOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	word := func() string { return pick("a", "ab", "A", "b", "1", "12", "1.5") }
	key := func() string { return pick("user", "x", "y", "event", "service", "file") }
	hits := 0
	for range 20_000 {
		line := fmt.Sprintf(`{"ts":"2026-03-01T11:%02d:00Z","level":%q,%q:"%s %s",%q:%q,%q:%s,"msg":"%s %s-%s"}`, rnd.IntN(60), pick("info", "warn", "error", "odd"), key(), word(), word(), key(), word(), pick("x", "y"), pick("1", "2", "12", "null", `{"z":1}`), word(), word(), word())
		r := record(line)
		var terms []string
		for range 1 + rnd.IntN(3) {
			term := pick("", "!")
			switch rnd.IntN(6) {
			case 0:
				term += word() + pick("", "*")
			case 1:
				term += `"` + word() + " " + word() + `"` + pick("", "*")
			case 2:
				term += key() + pick("=", "!=") + word() + pick("", "*") + pick("", ","+word())
			case 3:
				term += pick("x", "y", "x.z") + pick("<", "<=", ">", ">=") + pick("1", "1.5", "2", "12")
			case 4:
				term += "level" + pick("<", "<=", ">", ">=", "=") + pick("info", "warn")
			default:
				term = pick("since", "until") + "=" + pick("30m", "10m", "50m")
			}
			terms = append(terms, term)
		}
		text := strings.Join(terms, " ")
		q, err := logquery.Parse(text, now)
		if err != nil {
			if strings.Contains(err.Error(), "leave nothing") {
				continue
			}
			t.Fatalf("%s: %v", text, err)
		}
		got, want := q.Match(&r), slowMatch(q, &r)
		if got != want {
			t.Fatalf("%s on %s: %v, the oracle %v", text, line, got, want)
		}
		if got {
			hits++
		}
	}
	if hits < 2000 {
		t.Errorf("only %d hits: the comparison says little", hits)
	}
}

func TestTokens(t *testing.T) {
	got := logquery.Tokens("Sign-in: user_1@Host 10.8.0.1 Ärger, 東京 \x1b[31m \xff")
	// Each rune is made lower by itself, whatever the language: a Turkish İ is an
	// i, a Σ is a σ at the end of a word too, and ß is no ss.
	fold := logquery.Tokens("İSTANBUL ISTANBUL ΟΔΟΣ οδος STRAẞE \u212aelvin")
	if d := cmp.Diff([]string{"istanbul", "istanbul", "οδοσ", "οδος", "straße", "kelvin"}, fold); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"sign", "in", "user_1", "host", "10", "8", "0", "1", "ärger", "東京", "31m"}, got); d != "" {
		t.Error(d)
	}
}

func FuzzTokens(f *testing.F) {
	for _, s := range []string{"Sign-in", "İstanbul K ǅ ß", strings.Repeat("aÉ", 70), "\xff\x00_", "٣٤ Ⅷ é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, want := logquery.Tokens(s), slowTokens(s)
		if !slices.Equal(got, want) {
			t.Fatalf("%q gives %q, want %q", s, got, want)
		}
		if again := logquery.Tokens(strings.Join(got, " ")); !slices.Equal(again, got) {
			t.Fatalf("%q gives %q, and again %q", s, got, again)
		}
	})
}

// A long phrase that nearly matches at every word of a long line: looking anew
// at each of them would take minutes, and no question may take that.
func TestPhraseBomb(t *testing.T) {
	bomb := strings.Repeat("a ", 10_000)
	line := record("plain " + strings.Repeat("a ", 200_000))
	for text, want := range map[string]bool{`"` + bomb + `b"`: false, `"` + bomb + `b"*`: false, `"` + bomb + `"`: true, `"plain ` + bomb + `"*`: true} {
		q, err := logquery.Parse(text, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Match(&line); got != want {
			t.Errorf("%.20s… %v, want %v", text, got, want)
		}
	}
}

// TestPhraseAgainstOracle: texts of two words, so that phrases overlap
// themselves in every way.
func TestPhraseAgainstOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	words := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString([]string{"a ", "b ", "ab "}[rnd.IntN(3)])
		}
		return strings.TrimSpace(b.String())
	}
	hits := 0
	for range 20_000 {
		text := `"` + words(1+rnd.IntN(6)) + `"` + []string{"", "*"}[rnd.IntN(2)]
		q, err := logquery.Parse(text, now)
		if err != nil {
			t.Fatal(err)
		}
		r := record(words(rnd.IntN(24)))
		got, want := q.Match(&r), slowMatch(q, &r)
		if got != want {
			t.Fatalf("%s in %q: %v, the oracle %v", text, r.Message, got, want)
		}
		if got {
			hits++
		}
	}
	if hits < 2000 || hits > 18_000 {
		t.Errorf("%d hits: the comparison says little", hits)
	}
}

func TestHighlights(t *testing.T) {
	for _, c := range []struct{ query, text, want string }{
		{"refused", "Refused, not refusedly", "[Refused], not refusedly"},
		{`"sign-in ref"* !not user=x`, "SIGN in refused; not sign", "[SIGN in refused]; not sign"},
		{`sign "sign in"`, "sign sign in", "[sign] [sign in]"},
		{"straße*", "Straßenbahn", "[Straßenbahn]"},
		{"user=x", "x", "x"},
	} {
		q, err := logquery.Parse(c.query, now)
		if err != nil {
			t.Fatal(err)
		}
		got, last := "", 0
		for _, h := range q.Highlights(c.text) {
			got += c.text[last:h[0]] + "[" + c.text[h[0]:h[1]] + "]"
			last = h[1]
		}
		if got += c.text[last:]; got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
}

// TestDocumentation runs every example of docs/logs.md: those of the tables
// headed Example and the indented ones are queries, those headed Mistake are
// refused at the column beside them.
func TestDocumentation(t *testing.T) {
	f, err := os.Open("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	code := regexp.MustCompile("^\\| `` ?(.*?) ?`` \\|(?: (\\d+) \\|)?")
	head, good, bad := "", 0, 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line := sc.Text()
		if !strings.HasPrefix(line, "|") {
			head = ""
			if rest, ok := strings.CutPrefix(line, "    "); ok {
				if _, err := logquery.Parse(rest, now); err != nil {
					t.Errorf("%s: %v", rest, err)
				}
				good++
			}
			continue
		}
		if head == "" {
			head = strings.TrimSpace(strings.Split(line, "|")[1])
			continue
		}
		m := code.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "|--") || head != "Example" && head != "Mistake":
		case m == nil:
			t.Errorf("no example in %q", line)
		case head == "Mistake":
			if _, err := logquery.Parse(m[1], now); err == nil || !strings.Contains(err.Error(), "column "+m[2]+":") {
				t.Errorf("%s must be refused at column %s, not %v", m[1], m[2], err)
			}
			bad++
		default:
			if _, err := logquery.Parse(m[1], now); err != nil {
				t.Errorf("%s: %v", m[1], err)
			}
			good++
		}
	}
	if good < 30 || bad < 8 {
		t.Errorf("%d examples and %d mistakes found: the tables are not what this test reads", good, bad)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := logquery.Parse(`service=auth level>=warn user=alice,bob !event=ping "sign-in refused" dur_ms>200 since=1h`, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, text := range []string{"service=auth level>=warn", `"sign-in refused" dur_ms>200`} {
		q, err := logquery.Parse(text, now)
		if err != nil {
			b.Fatal(err)
		}
		match := q.Matcher()
		b.Run(text[:4], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !match(&records[0]) {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkTokens(b *testing.B) {
	s := "peer p01234 at 203.0.113.9 passed the second factor in time"
	var dst []string
	b.ReportAllocs()
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		dst = logquery.AppendTokens(dst[:0], s)
	}
}
