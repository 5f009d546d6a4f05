package lanes

// LookPause is for the test of its bounds.
var LookPause = lookPause
