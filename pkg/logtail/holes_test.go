package logtail_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/logtail"
)

// A hole of many megabytes before a line is not the line.
func TestHoles(t *testing.T) {
	for name, size := range map[string]int64{"small": 5000, "longer than a line may be": 3 * logtail.MaxLine, "huge": 1 << 40} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := filepath.Join(dir, "a.log")
			write(t, a, "one\n")
			k := newKeeper()
			opts := k.options(dir)
			stop := follow(t, opts)
			k.wants(t, "one")
			f, err := os.OpenFile(a, os.O_WRONLY, 0)
			must(t, err)
			defer f.Close()
			_, err = f.WriteAt([]byte("two\nthr"), size)
			must(t, err)
			k.wants(t, "one", "two")
			_, err = f.WriteAt([]byte("ee\n"), size+7)
			must(t, err)
			k.wants(t, "one", "two", "three")
			stop()
			if k.cut > 0 {
				t.Error("a hole counts as text that was cut")
			}
		})
	}
}

// Lines of every length near the bounds, with holes before them, written in pieces
// of every size: what comes is what splitting the file gives.
func TestLinesAgainstOracle(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	near := func() int {
		bounds := []int{0, 1, 64, 1 << 10, 64 << 10, 256 << 10, 320 << 10, logtail.MaxLine, 5 * logtail.MaxLine / 2}
		return max(0, bounds[rnd.IntN(len(bounds))]+rnd.IntN(5)-2)
	}
	var text bytes.Buffer
	var want []string
	cut := 0
	for i := range 60 {
		var hole []byte
		if rnd.IntN(3) == 0 {
			hole = make([]byte, near())
		}
		line := strings.Repeat(string('a'+rune(i%26)), near())
		if n := len(line); n > 1 && rnd.IntN(4) == 0 {
			line = line[:n/2] + "\x00\r" + line[n/2:]
		}
		text.Write(hole)
		text.WriteString(line + "\n")
		if len(line) > logtail.MaxLine {
			line = line[:logtail.MaxLine]
			cut++
		}
		want = append(want, line)
	}
	dir := t.TempDir()
	k := newKeeper()
	stop := follow(t, k.options(dir))
	for text.Len() > 0 {
		write(t, filepath.Join(dir, "a.log"), string(text.Next(1+near())))
		if rnd.IntN(10) == 0 {
			stop()
			stop = follow(t, k.options(dir))
		}
	}
	until(t, "all lines", func() bool { return len(k.all()) >= len(want) })
	stop()
	for i, got := range k.all() {
		if i >= len(want) || got != want[i] {
			t.Fatalf("line %d: %d bytes, %.20q…", i, len(got), got)
		}
	}
	if k.cut != cut || len(k.wrong) > 0 {
		t.Errorf("%d marked as cut, want %d; %v", k.cut, cut, k.wrong)
	}
}

// A file that was given its size before its lines are written into it.
func TestFileOfZerosIsFilled(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.log")
	must(t, os.WriteFile(a, make([]byte, 3*logtail.MaxLine), 0o644))
	k := newKeeper()
	opts := k.options(dir)
	stop := follow(t, opts)
	f, err := os.OpenFile(a, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	want := []string{}
	for i := range 5 {
		line := fmt.Sprint("line", i)
		_, err = f.WriteString(line + "\n")
		must(t, err)
		want = append(want, line)
		k.wants(t, want...)
	}
	stop()
	stop = follow(t, k.options(dir))
	_, err = f.WriteString("last\n")
	must(t, err)
	k.wants(t, append(want, "last")...)
	stop()
}
