//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Units of figures.
const (
	inMillis  = "ms"
	inMicros  = "µs"
	perSecond = "/s"
	perCPU    = "/CPU-s"
	inMiB     = "MiB"
	inBytes   = "B"
	inMbit    = "Mbit/s"
	plain     = ""
)

// result is one line of the table.
type result struct {
	Name    string             `json:"name"`
	What    string             `json:"what"`
	Value   float64            `json:"value"`
	Unit    string             `json:"unit"`
	Floor   float64            `json:"floor,omitempty"` // 0: there is none
	FloorIs string             `json:"floor_is,omitempty"`
	Goal    string             `json:"goal,omitempty"`
	Reached *bool              `json:"reached,omitempty"`
	Notes   []string           `json:"notes,omitempty"`
	Samples map[string]samples `json:"samples,omitempty"`
	Err     string             `json:"error,omitempty"`
}

func (r *result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// keep adds raw samples.
func (r *result) keep(name string, s samples) {
	if r.Samples == nil {
		r.Samples = map[string]samples{}
	}
	r.Samples[name] = s
}

// goal says what is to be reached and whether it was.
func (r *result) goal(text string, reached bool) { r.Goal, r.Reached = text, &reached }

func (r result) ratio() float64 {
	if r.Floor == 0 {
		return 0
	}
	return r.Value / r.Floor
}

// report is a whole run.
type report struct {
	Machine string    `json:"machine"`
	Began   time.Time `json:"began"`
	Short   bool      `json:"short"`
	Busy    float64   `json:"busy_before"` // part of the cores that others used before it began
	After   float64   `json:"busy_after"`
	Seconds float64   `json:"seconds"`
	Rows    []result  `json:"rows"`
}

func newReport(o options) *report {
	return &report{Machine: machine(o.dir), Began: time.Now().UTC(), Short: o.short}
}

func (r *report) add(row result) { r.Rows = append(r.Rows, row) }

func (r *report) write(path string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// print writes the table and, below it, what there is to say to each line.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n", r.Machine)
	fmt.Fprintf(w, "%s, %.0f s", r.Began.Format("2006-01-02 15:04 UTC"), r.Seconds)
	if r.Short {
		fmt.Fprint(w, ", -short: too few samples to quote")
	}
	fmt.Fprintln(w)
	if max(r.Busy, r.After) > quiet {
		fmt.Fprintf(w, "Others used %.0f %% of the cores before this and %.0f %% after it: the figures suffer.\n", 100*r.Busy, 100*r.After)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tMEASURED\tFLOOR\tRATIO\tGOAL\tREACHED")
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	_ = t.Flush() // to a terminal or a pipe; there is nothing to do about it
	for _, row := range r.Rows {
		if len(row.Notes) == 0 && row.FloorIs == "" && row.Err == "" {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", row.What)
		if row.Err != "" {
			fmt.Fprintf(w, "  failed: %s\n", row.Err)
		}
		if row.FloorIs != "" {
			fmt.Fprintf(w, "  floor: %s\n", row.FloorIs)
		}
		for _, n := range row.Notes {
			fmt.Fprintf(w, "  %s\n", n)
		}
	}
}

func (r result) cells() []string {
	if r.Err != "" {
		return []string{r.What, "failed", "-", "-", "-", "-"}
	}
	cells := []string{r.What, figure(r.Value, r.Unit), "-", "-", "-", "-"}
	if r.Floor > 0 {
		cells[2] = figure(r.Floor, r.Unit)
		cells[3] = fmt.Sprintf("%.2f", r.ratio())
	}
	if r.Reached != nil {
		cells[4], cells[5] = r.Goal, "no"
		if *r.Reached {
			cells[5] = "yes"
		}
	}
	return cells
}

// figure writes a value with as many digits as it is good for.
func figure(v float64, unit string) string {
	digits := 2
	switch {
	case unit == plain || v >= 100:
		digits = 0
	case v >= 10:
		digits = 1
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}

// machine says what the figures were measured on.
func machine(dir string) string {
	cpu := "unknown processor"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d cores, %s, Linux %s, %s, databases on %s", runtime.NumCPU(), cpu, kernel, runtime.Version(), disk(dir))
}

// disk names the kind of file system; one in memory makes commits free.
func disk(dir string) string {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return dir
	}
	switch int64(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return "a file system in memory: commits cost nothing, choose another -dir"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", int64(fs.Type))
}

// quiet is what others may use of the cores without being mentioned.
const quiet = 0.1

// othersUse tells what part of the cores is in use, by watching for a while in
// which this program does nothing.
func othersUse(ctx context.Context) (float64, error) {
	busy0, all0, err := coreTime()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return 0, err
	}
	busy1, all1, err := coreTime()
	return (busy1 - busy0) / max(all1-all0, 1), err
}

// coreTime is how long all cores together were in use and how long they exist,
// in ticks: see proc_stat(5). Time that the host of a virtual machine took away
// counts as in use.
func coreTime() (busy, all float64, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(data), "\n")
	const idle, iowait, steal = 4, 5, 8
	for i, f := range strings.Fields(first) {
		if i == 0 || i > steal {
			continue
		}
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("not the first line of /proc/stat: %q", first)
		}
		all += n
		if i != idle && i != iowait {
			busy += n
		}
	}
	return busy, all, nil
}
