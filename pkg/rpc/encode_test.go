package rpc_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func randomText(r *rand.Rand, least int, without string) string {
	const odd = "a Z09/%?#&=+;:,.~{}[]\\\"'<>|^`@!$*()-_\t\néß漢😀\u2028\ufffd\u0001"
	all := []rune(odd)
	var b strings.Builder
	for n := least + r.IntN(6); n > 0; {
		if c := all[r.IntN(len(all))]; !strings.ContainsRune(without, c) {
			b.WriteRune(c)
			n--
		}
	}
	return b.String()
}

func randomTime(r *rand.Rand) time.Time {
	t := time.Unix(r.Int64N(4e9), r.Int64N(1e9)).UTC()
	if r.IntN(3) == 0 {
		t = t.In(time.FixedZone("", 3600*(r.IntN(20)-10)))
	}
	return t
}

func maybe[T any](r *rand.Rand, v T) T {
	if r.IntN(3) == 0 {
		return *new(T)
	}
	return v
}

func randomMixed(r *rand.Rand) *mixedReq {
	m := &mixedReq{
		ID:    randomText(r, 1, ""),
		Text:  maybe(r, randomText(r, 1, "")),
		Since: maybe(r, randomTime(r)),
		On:    r.IntN(2) == 0,
		Count: maybe(r, r.Int64()-math.MaxInt64/2),
		Size:  maybe(r, r.Uint32()),
		Share: maybe(r, r.NormFloat64()*math.Pow(10, float64(r.IntN(40)-20))),
		Token: maybe(r, "t"+randomText(r, 1, " \t\n\u0001")+"t"),
		When:  maybe(r, randomTime(r).Truncate(time.Second)),
		Body: mixedBody{
			Name: maybe(r, randomText(r, 1, "")), Age: maybe(r, r.Int32()), Big: maybe(r, r.Uint64()>>11),
			Blob: maybe(r, []byte(randomText(r, 1, ""))), At: maybe(r, randomTime(r)),
			Tags:  maybe(r, map[string]string{randomText(r, 1, ""): randomText(r, 0, "")}),
			Inner: maybe(r, &mixedInner{Note: "note", N: -5}),
		},
	}
	if r.IntN(40) == 0 {
		m.ID = []string{".", "..", "...", ".a", "a.", "%2e", "//", "a/", "a/../b"}[r.IntN(9)]
	}
	if m.ID == "/" {
		m.ID = "a" // ServeMux takes it for the end of the path, and nothing has that name
	}
	for range r.IntN(3) {
		m.Many = append(m.Many, randomText(r, 1, ","))
		m.Nums = append(m.Nums, int(r.Int32())-math.MaxInt32/2)
		m.Body.List = append(m.Body.List, mixedInner{Note: maybe(r, "x"), N: int8(r.IntN(100))})
	}
	return m
}

func TestEveryRequestArrivesAsItWasSent(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	conn := w.conn(t)
	seed := time.Now().UnixNano()
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for range 2000 {
		want := randomMixed(r)
		got, err := mixed.Call(t.Context(), conn, want)
		if err != nil {
			t.Fatalf("seed %d: %v\n%+v", seed, err, want)
		}
		if want.Count == 0 {
			want.Count = 100 // its default
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(0), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-sent +arrived):\n%s", seed, diff)
		}
	}
}

func TestWhatCannotBeSentIsRefusedHere(t *testing.T) {
	conn := rpc.DialUnix("svc", "/nonexistent", rpc.Options{Patience: -1})
	for field, m := range map[string]*mixedReq{
		"path.id":     {},
		"query.many":  {ID: "a", Many: []string{"a,b"}},
		"query.since": {ID: "a", Since: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"body":        {ID: "a", Body: mixedBody{Blob: make([]byte, rpc.MaxBody)}},
	} {
		_, err := mixed.Call(t.Context(), conn, m)
		if f := fault.From(err); !errors.Is(err, fault.Invalid) || len(f.Fields) != 1 || f.Fields[0].Path != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := mixed.Call(t.Context(), conn, &mixedReq{ID: "a", Many: []string{""}}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a list of an empty text: got %v", err)
	}
}
