//go:build linux

package supervise

import (
	"maps"
	"slices"
	"sync"
)

// cycle returns a circle of After as a list of names that ends where it
// began, or nil.
func cycle(services map[string]Spec) []string {
	const (
		open = 1
		done = 2
	)
	mark := map[string]int{}
	var stack []string
	var visit func(name string) []string
	visit = func(name string) []string {
		switch mark[name] {
		case done:
			return nil
		case open:
			return append(slices.Clone(stack[slices.Index(stack, name):]), name)
		}
		mark[name] = open
		stack = append(stack, name)
		for _, next := range services[name].After {
			if loop := visit(next); loop != nil {
				return loop
			}
		}
		stack = stack[:len(stack)-1]
		mark[name] = done
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if loop := visit(name); loop != nil {
			return loop
		}
	}
	return nil
}

// inStopOrder calls stop for every name, a service before those it lists in
// after, otherwise at the same time, and returns when all calls have. after
// must be free of circles; names outside the set are ignored.
func inStopOrder(after map[string][]string, stop func(name string)) {
	finished := make(map[string]chan struct{}, len(after))
	for name := range after {
		finished[name] = make(chan struct{})
	}
	dependents := map[string][]string{}
	for name, needs := range after {
		for _, need := range needs {
			if _, ok := after[need]; ok {
				dependents[need] = append(dependents[need], name)
			}
		}
	}
	var wg sync.WaitGroup
	for name := range after {
		wg.Go(func() {
			defer close(finished[name])
			for _, d := range dependents[name] {
				<-finished[d]
			}
			stop(name)
		})
	}
	wg.Wait()
}
