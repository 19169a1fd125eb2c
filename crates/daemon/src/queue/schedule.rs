//! When the second pair of rate limits applies.

/// Minutes since Sunday, 00:00, local time: below 10,080.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeekMinute(pub u16);

/// The times of the week at which the second pair of rate limits applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    begin: u16,
    /// Duration in minutes; a day if it would end when it begins.
    lasts: u16,
    days: u8,
}

impl WeekMinute {
    /// Returns the minute for a number of days since Sunday and a time of day.
    pub fn new(days_since_sunday: u8, hour: u8, minute: u8) -> Self {
        let of_day = u16::from(hour) * 60 + u16::from(minute);
        Self((u16::from(days_since_sunday) * DAY + of_day) % WEEK)
    }
}

impl Schedule {
    /// Returns the schedule that begins and ends at these minutes after midnight, on the days of the week
    /// whose bits are set in `days`; Sunday is the lowest.
    pub fn new(begin: u16, end: u16, days: u8) -> Self {
        let (begin, end) = (begin % DAY, end % DAY);
        let lasts = if end > begin { end - begin } else { end + DAY - begin };
        Self { begin, lasts, days: days & 127 }
    }

    /// Returns whether the limits apply at `now`.
    pub fn holds(&self, now: WeekMinute) -> bool {
        self.starts().any(|start| (now.0 + WEEK - start) % WEEK < self.lasts)
    }

    /// Returns the minutes from `now` until that may change; `None` if it never does.
    pub fn next_change(&self, now: WeekMinute) -> Option<u16> {
        let until = |at: u16| match (at + WEEK - now.0) % WEEK {
            0 => WEEK,
            minutes => minutes,
        };
        self.starts().flat_map(|start| [until(start), until((start + self.lasts) % WEEK)]).min()
    }

    fn starts(&self) -> impl Iterator<Item = u16> + '_ {
        (0..7).filter(|day| self.days & (1 << day) != 0).map(|day| day * DAY + self.begin)
    }
}

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn office_hours_on_weekdays() {
        let office = Schedule::new(9 * 60, 17 * 60, 0b0111110);
        assert!(office.holds(WeekMinute::new(1, 9, 0)));
        assert!(!office.holds(WeekMinute::new(1, 17, 0)));
        assert!(!office.holds(WeekMinute::new(0, 12, 0)));
        assert_eq!(office.next_change(WeekMinute::new(5, 17, 0)), Some(2 * DAY + 16 * 60));
        assert_eq!(office.next_change(WeekMinute::new(2, 16, 58)), Some(2));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let saturday_night = Schedule::new(22 * 60, 6 * 60, 64);
        assert!(saturday_night.holds(WeekMinute::new(6, 23, 0)));
        assert!(saturday_night.holds(WeekMinute::new(0, 5, 59)));
        assert!(!saturday_night.holds(WeekMinute::new(0, 6, 0)));
        assert!(!saturday_night.holds(WeekMinute::new(6, 5, 0)));
    }

    #[test]
    fn no_days_are_never() {
        let never = Schedule::new(0, 1, 0);
        assert!(!never.holds(WeekMinute(0)));
        assert_eq!(never.next_change(WeekMinute(0)), None);
    }

    proptest! {
        #[test]
        fn nothing_changes_before_it_is_said_to(
            begin in 0..DAY, end in 0..DAY, days in 0_u8..128, now in 0..WEEK,
        ) {
            let schedule = Schedule::new(begin, end, days);
            let now = WeekMinute(now);
            let holds = schedule.holds(now);
            let until = schedule.next_change(now).unwrap_or(WEEK);
            for minutes in 0..until {
                prop_assert_eq!(schedule.holds(WeekMinute((now.0 + minutes) % WEEK)), holds);
            }
        }
    }
}
