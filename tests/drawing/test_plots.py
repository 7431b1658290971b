from mixskd.drawing.plots import line_plot


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten_for_whole_numbers_too() -> None:
    plot = line_plot("growth", "", [("line", [10, 160, 1280], [1, 2, 3])], "files", "seconds", log_x=True)
    ax = plot.figure.axes[0]
    assert [tick for tick in ax.get_xticks() if 10 <= tick <= 1280] == [10, 100, 1000]
