package logtail

import (
	"context"
	"time"
)

// RunHasty is Run that believes after the times given that nobody ends a line.
func RunHasty(ctx context.Context, opts Options, idle, forsaken time.Duration) error {
	opts, err := opts.check()
	if err != nil {
		return err
	}
	t := newTailer(opts)
	defer t.close()
	t.idle, t.forsaken = idle, forsaken
	return t.run(ctx)
}
