//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"vpnd/pkg/lab"
)

// processes maps what vpnd runs on the server to process ids: "supervisor" and
// the names of the services. wireguard-go is listed by its interface, apart.
func (w *world) processes() (services, wireguard map[string]int, err error) {
	all, err := w.Processes()
	if err != nil {
		return nil, nil, err
	}
	services, wireguard = map[string]int{}, map[string]int{}
	for _, p := range all {
		if p.Machine != lab.Server || len(p.Args) < 2 || filepath.Base(p.Args[0]) != "vpnd" {
			continue
		}
		switch {
		case p.Args[1] == "run":
			services["supervisor"] = p.PID
		case p.Args[1] == "service" && len(p.Args) == 3:
			services[p.Args[2]] = p.PID
		case p.Args[1] == "wireguard" && len(p.Args) > 2:
			wireguard[p.Args[2]] = p.PID
		}
	}
	return services, wireguard, nil
}

// usage is processor time by process, in milliseconds since it began.
type usage map[string]float64

// usage reads the time of every process of vpnd; those of wireguard-go are
// added up under that name.
func (w *world) usage() (usage, error) {
	services, wireguard, err := w.processes()
	if err != nil {
		return nil, err
	}
	out := usage{}
	for name, pid := range services {
		if out[name], err = processorTime(pid); err != nil {
			return nil, err
		}
	}
	for _, pid := range wireguard {
		t, err := processorTime(pid)
		if err != nil {
			return nil, err
		}
		out["wireguard-go"] += t
	}
	return out, nil
}

// spent says what each of n calls cost since before was read.
func (w *world) spent(before usage, n int) (string, error) {
	after, err := w.usage()
	if err != nil {
		return "", err
	}
	sum := 0.0
	var parts []string
	for _, name := range sortedKeys(after) {
		t := (after[name] - before[name]) / float64(max(n, 1))
		sum += t
		if t >= 0.005 {
			parts = append(parts, fmt.Sprintf("%s %.2f", name, t))
		}
	}
	return fmt.Sprintf("processor time a call, all processes of vpnd: %.2f ms (%s)", sum, strings.Join(parts, ", ")), nil
}

// clockTick is the unit of /proc/PID/stat in milliseconds: USER_HZ is 100 on
// every architecture that Go runs on.
const clockTick = 10

func processorTime(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

// parseStat adds user and system time of a line of proc_pid_stat(5). The second
// field is a name in parentheses that may hold anything.
func parseStat(line string) (float64, error) {
	_, rest, ok := strings.Cut(line[max(0, strings.LastIndexByte(line, ')')):], ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}
	user, errUser := strconv.ParseUint(fields[11], 10, 64)
	system, errSystem := strconv.ParseUint(fields[12], 10, 64)
	if errUser != nil || errSystem != nil {
		return 0, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}
	return float64(user+system) * clockTick, nil
}

// proportional is the memory of a process in MiB, each page that it shares
// divided by the number of those who share it.
func proportional(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return parseRollup(string(data))
}

func parseRollup(text string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return float64(kib) / 1024, err
		}
	}
	return 0, fmt.Errorf("no Pss in /proc/PID/smaps_rollup")
}
