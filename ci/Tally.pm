# prove's own formatters (for a terminal and for a file), with one more line at the end: `N passed, N failed`. A test
# file that breaks off, or ends with an error although no point failed, counts as one failure.
package Tally;
use strict;
use warnings;
use TAP::Formatter::Console;
use TAP::Formatter::File;

our @ISA = (-t STDOUT ? 'TAP::Formatter::Console' : 'TAP::Formatter::File');

sub summary {
    my ($self, $aggregate, @rest) = @_;
    $self->SUPER::summary($aggregate, @rest);
    my $failed = $aggregate->failed;
    for my $parser ($aggregate->parsers) {
        $failed++ if ($parser->wait || $parser->parse_errors) && !$parser->failed;
    }
    printf "%d skipped\n", scalar $aggregate->skipped if $aggregate->skipped;
    printf "%d passed, %d failed\n", scalar $aggregate->passed, $failed;
}

1;
